//! Password hashes: argon2id for ours, bcrypt of the former software. Pure, and slow on purpose.

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};

/// 7 MiB, 5 passes, 1 lane: of the settings that OWASP calls equal the one that takes least memory, and here least time
/// (`docs/decisions/0005-password-hashes.md`).
const MEMORY_KIB: u32 = 7 * 1024;
const PASSES: u32 = 5;
const LANES: u32 = 1;

/// Blocks of 1 KiB that are reserved for a hash, whatever it uses of them. glibc gives memory back at once if it was
/// asked for more than 32 MiB; of smaller pieces each thread would keep its own. What is not touched costs nothing.
const RESERVED_BLOCKS: usize = 33 * 1024;

/// Hashes a new password; `None` where the system can't (no memory, no random numbers).
pub(crate) fn hash(password: &str) -> Option<String> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).ok()?;
    let salt = Salt::generate();
    let (algorithm, version) = (Algorithm::Argon2id, Version::V0x13);
    let hash = PasswordHash {
        algorithm: algorithm.ident(),
        version: Some(version.into()),
        params: ParamsString::try_from(&params).ok()?,
        salt: Some(salt),
        hash: Some(compute(algorithm, version, params, password, &salt, Params::DEFAULT_OUTPUT_LEN)?),
    };
    Some(hash.to_string())
}

/// Does the hash belong to this password? Whatever its settings are: they stand in it.
pub(crate) fn verify(hash: &str, password: &str) -> bool {
    if is_former(hash) {
        return bcrypt::verify(password, hash).unwrap_or(false);
    }
    PasswordHash::new(hash).is_ok_and(|parsed| verify_ours(&parsed, password).unwrap_or(false))
}

/// Is it a hash of the former software?
pub(crate) fn is_former(hash: &str) -> bool {
    hash.starts_with("$2")
}

fn verify_ours(parsed: &PasswordHash, password: &str) -> Option<bool> {
    let algorithm = Algorithm::try_from(parsed.algorithm.as_str()).ok()?;
    let version = parsed.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
    let params = Params::try_from(parsed).ok()?;
    let (salt, expected) = (parsed.salt.as_ref()?, parsed.hash.as_ref()?);
    let computed = compute(algorithm, version, params, password, salt, expected.len())?;
    // `Output` compares in constant time.
    Some(computed == *expected)
}

fn compute(
    algorithm: Algorithm,
    version: Version,
    params: Params,
    password: &str,
    salt: &[u8],
    length: usize,
) -> Option<Output> {
    let blocks = params.block_count();
    let mut memory = Vec::new();
    memory.try_reserve_exact(blocks.max(RESERVED_BLOCKS)).ok()?;
    memory.resize(blocks, Block::new());
    let mut buffer = [0; Output::MAX_LENGTH];
    let output = buffer.get_mut(..length)?;
    let argon2 = Argon2::new(algorithm, version, params);
    argon2.hash_password_into_with_memory(password.as_bytes(), salt, output, &mut memory[..]).ok()?;
    Output::new(output).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_ours_and_of_the_former_software() {
        let ours = hash("secret").unwrap();
        assert!(ours.starts_with("$argon2id$v=19$m=7168,t=5,p=1$"), "{ours}");
        assert!(verify(&ours, "secret") && !verify(&ours, "other"));
        let former = bcrypt::hash("secret", 4).unwrap();
        assert!(verify(&former, "secret") && !verify(&former, "other"));
        assert!(!verify("", "secret") && !verify("$2b$nonsense", "secret"));
        assert_ne!(hash("secret"), hash("secret"), "each has its own salt");
    }

    #[test]
    fn settings_stand_in_the_hash() {
        let known =
            argon2::PasswordHasher::hash_password_with_salt(&Argon2::default(), b"secret", b"saltsalt")
                .unwrap();
        let former = known.to_string();
        assert!(former.contains("m=19456,t=2,p=1"), "{former}");
        assert!(verify(&former, "secret") && !verify(&former, "other"));
        for broken in
            ["$argon2id$v=19$m=7168,t=5,p=1$c2FsdHNhbHQ", "$argon2x$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAA"]
        {
            assert!(!verify(broken, "secret"), "{broken}");
        }
    }
}
