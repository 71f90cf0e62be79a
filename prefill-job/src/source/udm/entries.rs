//! The names of a list, kept small: of the 600 bytes of an entry some 25 remain, so a million of them are 25 MB.
//!
//! A DN is its first part and the number of its container. Entries are packed in blocks, which are unpacked and let go
//! one by one as the objects are read: in order, once, as a prefill does. UUIDs, which do not pack, are most of it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use uuid::Uuid;

/// Bytes of a block, before it is packed.
const BLOCK: usize = 64 * 1024;

/// Containers that get a number; the DNs of any others are kept whole, so that a directory of as many containers as
/// objects costs no more than its text.
const CONTAINERS_MAX: usize = 1 << 14;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub dn: String,
    pub object_type: Arc<str>,
    pub uuid: Option<Uuid>,
}

/// The entries of a list, in its order, to be taken one by one.
#[derive(Debug, Default)]
pub(super) struct Entries {
    packed: VecDeque<Packed>,
    /// The block that is being filled, or read from `place` on once nothing more comes.
    block: Vec<u8>,
    place: usize,
    left: usize,
    types: Numbers,
    containers: Numbers,
    packer: Option<Compress>,
}

/// A block.
#[derive(Debug)]
struct Packed {
    bytes: Box<[u8]>,
    /// Bytes when it is unpacked.
    length: usize,
}

/// Words by their numbers, and the other way round.
#[derive(Debug, Default)]
struct Numbers {
    words: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, usize>,
}

impl Numbers {
    fn of(&mut self, word: &str) -> usize {
        if let Some(number) = self.numbers.get(word) {
            return *number;
        }
        let word: Arc<str> = word.into();
        self.words.push(Arc::clone(&word));
        self.numbers.insert(word, self.words.len() - 1);
        self.words.len() - 1
    }

    fn is_full(&self, word: &str) -> bool {
        self.words.len() >= CONTAINERS_MAX && !self.numbers.contains_key(word)
    }
}

impl Entries {
    /// Entries that have not been taken.
    pub fn len(&self) -> usize {
        self.left
    }

    /// Adds an entry. None may have been taken yet.
    pub fn push(&mut self, dn: &str, object_type: &str, uuid: Option<Uuid>) -> io::Result<()> {
        let object_type = self.types.of(object_type);
        number(&mut self.block, object_type * 2 + usize::from(uuid.is_some()));
        let (name, container) = match container(dn).filter(|place| !self.containers.is_full(&dn[*place..])) {
            Some(place) => (&dn[..place], self.containers.of(&dn[place..]) + 1),
            None => (dn, 0),
        };
        number(&mut self.block, container);
        number(&mut self.block, name.len());
        self.block.extend_from_slice(name.as_bytes());
        if let Some(uuid) = uuid {
            self.block.extend_from_slice(uuid.as_bytes());
        }
        self.left += 1;
        if self.block.len() >= BLOCK { self.pack() } else { Ok(()) }
    }

    /// That was all: from now on entries are taken.
    pub fn finish(&mut self) -> io::Result<()> {
        self.pack()?;
        self.packer = None;
        self.types.numbers = HashMap::new();
        self.containers.numbers = HashMap::new();
        self.block = Vec::new();
        Ok(())
    }

    /// Takes the next entry.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.place == self.block.len() {
            self.unpack()?;
        }
        let entry = self.take().ok_or_else(|| io::Error::other("the kept list is damaged"))?;
        self.left -= 1;
        Ok(Some(entry))
    }

    fn take(&mut self) -> Option<Entry> {
        let mut rest = self.block.get(self.place..)?;
        let word = read_number(&mut rest)?;
        let container = read_number(&mut rest)?;
        let length = read_number(&mut rest)?;
        let name = std::str::from_utf8(rest.split_off(..length)?).ok()?;
        let uuid = match word % 2 {
            0 => None,
            _ => Some(Uuid::from_slice(rest.split_off(..16)?).ok()?),
        };
        let container: &str = match container.checked_sub(1) {
            None => "",
            Some(number) => self.containers.words.get(number)?,
        };
        let object_type = Arc::clone(self.types.words.get(word / 2)?);
        self.place = self.block.len() - rest.len();
        Some(Entry { dn: format!("{name}{container}"), object_type, uuid })
    }

    fn pack(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let packer = self.packer.get_or_insert_with(|| Compress::new(Compression::fast(), false));
        packer.reset();
        let mut packed = Vec::with_capacity(self.block.len() + self.block.len() / 8 + 64);
        packer.compress_vec(&self.block, &mut packed, FlushCompress::Finish)?;
        if packer.total_in() != self.block.len() as u64 {
            return Err(io::Error::other("a block of the list could not be packed"));
        }
        self.packed.push_back(Packed { bytes: packed.into(), length: self.block.len() });
        self.block.clear();
        Ok(())
    }

    fn unpack(&mut self) -> io::Result<()> {
        let Some(Packed { bytes, length }) = self.packed.pop_front() else { return Ok(()) };
        self.block.clear();
        self.place = 0;
        // As long as it becomes: it is unpacked at once, or not at all.
        self.block.reserve(length);
        Decompress::new(false).decompress_vec(&bytes, &mut self.block, FlushDecompress::Finish)?;
        match self.block.len() == length {
            true => Ok(()),
            false => Err(io::Error::other("the kept list is damaged")),
        }
    }

    /// Bytes that are kept.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.packed.iter().map(|block| block.bytes.len()).sum::<usize>() + self.block.capacity()
    }
}

/// Where the container's DN begins, comma included: at the first comma that is not escaped.
fn container(dn: &str) -> Option<usize> {
    let mut escaped = false;
    dn.bytes().position(|byte| {
        let found = byte == b',' && !escaped;
        escaped = byte == b'\\' && !escaped;
        found
    })
}

/// Seven bits a byte, the lowest first; the last byte has no eighth.
fn number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_number(rest: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = *rest.split_off_first()?;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(entries: &[Entry]) -> Entries {
        let mut kept = Entries::default();
        for entry in entries {
            kept.push(&entry.dn, &entry.object_type, entry.uuid).unwrap();
        }
        kept.finish().unwrap();
        assert_eq!(kept.len(), entries.len());
        kept
    }

    fn taken(mut kept: Entries) -> Vec<Entry> {
        std::iter::from_fn(|| kept.next().unwrap()).collect()
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_in_order(
            entries in proptest::collection::vec(
                ("[a-c,=ü\\\\ ]{0,12}|uid=[a-z]{1,300}(,ou=[a-z]{1,3}){1,4}", 0..3_u8, any::<Option<u128>>()), 0..80),
        ) {
            let entries: Vec<Entry> = entries.into_iter().map(|(dn, object_type, uuid)| Entry {
                dn, object_type: format!("type/{object_type}").into(), uuid: uuid.map(Uuid::from_u128),
            }).collect();
            prop_assert_eq!(taken(kept(&entries)), entries);
        }
    }

    #[test]
    fn many_blocks_containers_and_huge_names_come_out_as_they_were() {
        let object_type: Arc<str> = "a/b".into();
        let entries: Vec<Entry> = (0..3 * CONTAINERS_MAX)
            .map(|n| Entry {
                dn: match n % 1000 {
                    0 => format!("cn={},dc=x", "x".repeat(3 * BLOCK)),
                    _ => format!("cn={n},ou=own{n},dc=x"),
                },
                object_type: Arc::clone(&object_type),
                uuid: None,
            })
            .collect();
        assert_eq!(taken(kept(&entries)), entries);
    }

    #[test]
    fn an_entry_takes_less_than_thirty_bytes() {
        const COUNT: usize = 100_000;
        let object_type: Arc<str> = "users/user".into();
        let dn = |n: usize| format!("uid=anna.mueller{n},ou=Abteilung {},dc=swp-ldap,dc=internal", n % 10);
        let uuid = |n: usize| {
            Some(Uuid::from_u128((n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)))
        };
        let mut kept = Entries::default();
        for n in 0..COUNT {
            kept.push(&dn(n), &object_type, uuid(n)).unwrap();
        }
        kept.finish().unwrap();
        let each = kept.bytes() as f64 / COUNT as f64;
        assert!(each < 30.0, "{each}");
        // And what was read is let go.
        while kept.len() > COUNT / 2 {
            kept.next().unwrap();
        }
        assert!((kept.bytes() as f64) < 0.6 * each * COUNT as f64);
    }
}
