//! A digest is taken exactly if it follows the grammar, and read back as it was written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_runtime::name::Digest;

fuzz_target!(|text: &str| {
    let hex = |digits: &str, length| digits.len() == length && digits.chars().all(|digit| matches!(digit, '0'..='9' | 'a'..='f'));
    let follows = text.strip_prefix("sha256:").is_some_and(|digits| hex(digits, 64))
        || text.strip_prefix("sha512:").is_some_and(|digits| hex(digits, 128));
    match text.parse::<Digest>() {
        Ok(digest) => {
            assert!(follows);
            assert_eq!(digest.to_string(), text);
            assert_eq!(format!("{}:{}", digest.algorithm().as_str(), digest.hex()), text);
            assert_eq!(serde_json::to_value(&digest).unwrap(), text);
        }
        Err(_) => assert!(!follows),
    }
});
