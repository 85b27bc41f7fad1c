//! The form in which a guest keeps a password: crypt(3), SHA-512.

use ring::rand::{SecureRandom, SystemRandom};
use sha_crypt::{Algorithm, Params, PasswordHasher, ShaCrypt};
use wire::Secret;

use super::GuestError;

/// The fewest there may be. Our passwords are 120 random characters, which no number of rounds makes harder to guess,
/// and an emulated guest computes every round at each login.
const ROUNDS: u32 = Params::ROUNDS_MIN;
/// Sixteen characters of salt, which is all that SHA-512-crypt looks at.
const SALT_BYTES: usize = 12;

/// `$6$rounds=1000$SALT$HASH` of `password`, with a fresh salt.
///
/// # Errors
/// When the system has no random bytes.
pub fn crypt(password: &Secret) -> Result<Secret, GuestError> {
    let mut salt = [0; SALT_BYTES];
    SystemRandom::new().fill(&mut salt).map_err(|_| GuestError::NoRandomness)?;
    let rounds = Params::new(ROUNDS).map_err(|_| GuestError::Password)?;
    let hash = ShaCrypt::new(Algorithm::Sha512Crypt, rounds)
        .hash_password_with_salt(password.expose().as_bytes(), &salt)
        .map_err(|_| GuestError::Password)?;
    Ok(Secret::new(hash.as_str()))
}

#[cfg(test)]
mod tests {
    use sha_crypt::PasswordVerifier;

    use super::*;

    #[test]
    fn the_crate_agrees_with_crypt_about_a_password_of_120_characters() {
        // openssl passwd -6 -salt 'rounds=1000$abcdefghijklmnop' (Ab9 forty times)
        let theirs = "$6$rounds=1000$abcdefghijklmnop$n4vqAOQmfZqI2obuDHQ.XR2peIUkNlEybusukwLIsODUXYyyDsF3ANzYSMQptk2\
                      fB9X4kAZ7qivURGVBgfhKV.";
        let password = "Ab9".repeat(40);
        ShaCrypt::SHA512.verify_password(password.as_bytes(), theirs).unwrap();
        assert!(ShaCrypt::SHA512.verify_password(&password.as_bytes()[1..], theirs).is_err());
    }

    #[test]
    fn a_hash_has_the_documented_form_verifies_and_is_never_the_same_twice() {
        let password = Secret::new("Xy7".repeat(40));
        let (first, second) = (crypt(&password).unwrap(), crypt(&password).unwrap());
        assert_ne!(first.expose(), second.expose());
        let parts: Vec<_> = first.expose().split('$').collect();
        assert_eq!(
            (parts[1], parts[2], parts[3].len(), parts[4].len()),
            ("6", "rounds=1000", 16, 86)
        );
        ShaCrypt::SHA512.verify_password(password.expose().as_bytes(), first.expose()).unwrap();
    }
}
