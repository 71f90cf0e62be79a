//! What UDM shows of a user's certificate (X.509, DER).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

/// The parts of a name that are shown: the end of the property, and the attribute's object identifier.
const PARTS: [(&str, &[u8]); 7] = [
    ("Country", &[0x55, 4, 6]),
    ("State", &[0x55, 4, 8]),
    ("Location", &[0x55, 4, 7]),
    ("Organisation", &[0x55, 4, 10]),
    ("OrganisationalUnit", &[0x55, 4, 11]),
    ("CommonName", &[0x55, 4, 3]),
    ("Mail", &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1]),
];

/// Adds the properties of a certificate; what is none, or none at all, leaves them empty.
pub(super) fn add(stored: &[&[u8]], properties: &mut Map<String, Value>) {
    let mut set = |name: String, value: Value| _ = properties.insert(name, value);
    let Some(certificate) = stored.first().and_then(|der| Certificate::read(der)) else {
        for (part, _) in PARTS {
            set(format!("certificateIssuer{part}"), "".into());
            set(format!("certificateSubject{part}"), "".into());
        }
        for name in ["userCertificate", "certificateVersion", "certificateSerial"] {
            set(name.to_owned(), "".into());
        }
        for name in ["certificateDateNotBefore", "certificateDateNotAfter"] {
            set(name.to_owned(), Value::Null);
        }
        return;
    };
    let encoded = |der: &&[u8]| STANDARD.encode(der);
    let shown = match stored {
        [one] => encoded(one).into(),
        several => several.iter().map(encoded).collect(),
    };
    set("userCertificate".to_owned(), shown);
    for (part, oid) in PARTS {
        set(format!("certificateIssuer{part}"), of_name(certificate.issuer, oid).into());
        set(format!("certificateSubject{part}"), of_name(certificate.subject, oid).into());
    }
    set("certificateDateNotBefore".to_owned(), certificate.begin.into());
    set("certificateDateNotAfter".to_owned(), certificate.end.into());
    set("certificateVersion".to_owned(), certificate.version.to_string().into());
    set("certificateSerial".to_owned(), decimal(certificate.serial).into());
}

struct Certificate<'a> {
    version: u8,
    serial: &'a [u8],
    issuer: &'a [u8],
    subject: &'a [u8],
    begin: Option<String>,
    end: Option<String>,
}

impl<'a> Certificate<'a> {
    fn read(mut der: &'a [u8]) -> Option<Self> {
        let mut outer = expect(&mut der, 0x30)?;
        let mut inner = expect(&mut outer, 0x30)?;
        let version = match inner.first()? {
            0xa0 => *expect(&mut expect(&mut inner, 0xa0)?, 0x02)?.last()?,
            _ => 0,
        };
        let serial = expect(&mut inner, 0x02)?;
        expect(&mut inner, 0x30)?;
        let issuer = expect(&mut inner, 0x30)?;
        let mut validity = expect(&mut inner, 0x30)?;
        let subject = expect(&mut inner, 0x30)?;
        let (begin, end) = (date(&mut validity), date(&mut validity));
        Some(Self { version, serial, issuer, subject, begin, end })
    }
}

/// The content of the next element, which has this tag.
fn expect<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, content) = element(der)?;
    (found == tag).then_some(content)
}

/// The next element: its tag and its content.
fn element<'a>(der: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let tag = *der.split_off_first()?;
    let length = match *der.split_off_first()? {
        short @ 0..0x80 => usize::from(short),
        long => {
            let bytes = usize::from(long & 0x7f);
            let digits = (bytes <= 4).then(|| der.split_off(..bytes))??;
            digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit))
        }
    };
    Some((tag, der.split_off(..length)?))
}

fn date(validity: &mut &[u8]) -> Option<String> {
    let (tag, content) = element(validity)?;
    let text = std::str::from_utf8(content).ok()?;
    let (century, rest) = match tag {
        // Two digits of the year: of 1950 to 2049.
        0x17 => (if text < "5" { "20" } else { "19" }, text),
        0x18 => (text.get(..2)?, text.get(2..)?),
        _ => return None,
    };
    Some(format!("{century}{}-{}-{}", rest.get(..2)?, rest.get(2..4)?, rest.get(4..6)?))
}

/// The first value of an attribute in a name.
fn of_name(mut name: &[u8], oid: &[u8]) -> Option<String> {
    while let Some((_, mut set)) = element(&mut name) {
        while let Some((_, mut pair)) = element(&mut set) {
            let (found, value) = (expect(&mut pair, 0x06)?, element(&mut pair)?);
            if found == oid {
                return Some(match value {
                    // Two bytes a character.
                    (0x1e, wide) => {
                        let units = wide
                            .chunks_exact(2)
                            .map(|pair| pair.iter().fold(0, |unit, b| unit << 8 | u16::from(*b)));
                        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
                    }
                    (_, bytes) => std::str::from_utf8(bytes)
                        .map_or_else(|_| bytes.iter().map(|byte| char::from(*byte)).collect(), str::to_owned),
                });
            }
        }
    }
    None
}

/// A number of any length.
fn decimal(bytes: &[u8]) -> String {
    let mut digits = vec![0_u8];
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) << 8;
            *digit = u8::try_from(carry % 10).unwrap_or_default();
            carry /= 10;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 10).unwrap_or_default());
            carry /= 10;
        }
    }
    digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber};

    #[test]
    fn a_certificate_is_shown_in_its_parts() {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0]));
        params.not_before = rcgen::date_time_ymd(2024, 2, 3);
        params.not_after = rcgen::date_time_ymd(2054, 3, 4);
        params.distinguished_name.push(DnType::CommonName, "Jürgen");
        params.distinguished_name.push(DnType::CountryName, "DE");
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let mut properties = Map::new();
        add(&[&der], &mut properties);
        assert_eq!(properties.len(), 19);
        for (name, expected) in [
            ("userCertificate", Value::from(STANDARD.encode(&der))),
            ("certificateSubjectCommonName", "Jürgen".into()),
            ("certificateIssuerCountry", "DE".into()),
            ("certificateSubjectMail", Value::Null),
            ("certificateDateNotBefore", "2024-02-03".into()),
            ("certificateDateNotAfter", "2054-03-04".into()),
            ("certificateVersion", "2".into()),
            ("certificateSerial", "18446744073709551616".into()),
        ] {
            assert_eq!(properties[name], expected, "{name}");
        }
        // What is no certificate leaves all empty, and nothing panics on the way.
        for end in 0..der.len() {
            add(&[&der[..end]], &mut properties);
        }
        for stored in [&[][..], &[&b"x"[..]]] {
            let mut properties = Map::new();
            add(stored, &mut properties);
            assert_eq!((properties.len(), &properties["userCertificate"]), (19, &Value::from("")));
            assert_eq!(properties["certificateDateNotAfter"], Value::Null);
        }
    }
}
