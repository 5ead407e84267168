//! Names of pods as Kubernetes makes them, but the same for the same template each time, so that
//! a restarted mesh has the pods that it had.

/// What Kubernetes uses in made-up names: no vowels and nothing that looks alike.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// `length` letters that follow from `seed`.
pub fn letters(seed: &str, length: usize) -> String {
    let mut state = fnv(seed.as_bytes());
    (0..length)
        .map(|_| {
            // splitmix64: the high bits of FNV alone are too regular for short seeds
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            char::from(ALPHABET[usize::try_from(mixed % 27).unwrap_or_default()])
        })
        .collect()
}

/// The `pod-template-hash` of a template.
pub fn template_hash(template: &str) -> String {
    letters(template, 10)
}

/// `reviews-v1-7d9f8c6b54-x2x4z`: `turn` counts the pods that this template has had in its place.
pub fn pod_name(workload: &str, hash: &str, index: u32, turn: u32) -> String {
    let suffix = letters(&format!("{workload}/{hash}/{index}/{turn}"), 5);
    format!("{workload}-{hash}-{suffix}")
}

/// A UUID that follows from `seed`.
pub fn uid(seed: &str) -> String {
    let (high, low) = (fnv(seed.as_bytes()), fnv(format!("{seed}#").as_bytes()));
    let text = format!("{high:016x}{low:016x}");
    format!(
        "{}-{}-4{}-8{}-{}",
        &text[..8],
        &text[8..12],
        &text[13..16],
        &text[17..20],
        &text[20..]
    )
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_distinct() {
        let hash = template_hash("a template");
        let names: std::collections::BTreeSet<String> = (0..200)
            .map(|index| pod_name("reviews-v1", &hash, index % 20, index / 20))
            .collect();
        assert_eq!(names.len(), 200, "index and turn both count");
        assert_eq!(
            hash,
            template_hash("a template"),
            "the same template has the same hash"
        );
        let name = pod_name("reviews-v1", &hash, 0, 0);
        assert_eq!(name.len(), "reviews-v1-0123456789-abcde".len(), "{name}");
        assert_eq!(uid("x").len(), 36);
    }
}
