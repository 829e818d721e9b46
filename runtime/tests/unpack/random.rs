//! Random archives: whatever the bytes, no panic and nothing outside the destination.

use proptest::prelude::*;

use crate::support::*;

/// Names that meet each other often.
fn path() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", "outside", "canary"]);
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn layer() -> impl Strategy<Value = Layer> {
    let target = prop_oneof![path(), path().prop_map(|path| format!("/{path}")), path().prop_map(|path| format!("../{path}"))];
    let entry = (prop::sample::select(b"00122566".to_vec()), path(), target, 0_u32..0o10000);
    prop::collection::vec(entry, 0..12).prop_map(|entries| {
        entries.into_iter().fold(Layer::new(), |layer, (kind, path, target, mode)| layer.raw(kind, &path, &target, mode, b""))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let _ = Ground::new().unpack(&bytes, &options());
    }

    #[test]
    fn arbitrary_entries_stay_inside(layer in layer()) {
        let _ = Ground::new().unpack(&layer.tar(), &options());
    }

    #[test]
    fn mutated_archives_stay_inside(
        layer in layer(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), fix in any::<bool>()
    ) {
        let mut bytes = layer.tar();
        for (index, value) in flips {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if fix {
            fix_checksums(&mut bytes);
        }
        let _ = Ground::new().unpack(&bytes, &options());
    }
}

/// Makes mutations of headers count.
pub(crate) fn fix_checksums(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}
