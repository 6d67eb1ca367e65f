//! The ext4 writer, judged by e2fsprogs and by the kernel. Needs e2fsprogs, loop devices and root.
#![expect(clippy::disallowed_methods, reason = "the judges are other programs")]

mod support;

use hardtack::format::ext4::{InodeCount, Journal, minimum_size, plan};
use hardtack::units::Bytes;
use support::*;

/// Block counts around the edges of groups, and a few in between.
fn sizes(random: &mut Random) -> u64 {
    let group = 32_768;
    match random.below(4) {
        0 => random.below(group),
        1 => (1 + random.below(34)) * group + [0, 1, 2, 49, 50, 51, 560, 620, 820][random.below(9) as usize],
        2 => (1 + random.below(34)) * group - 1 - random.below(3),
        _ => random.below(40 * group),
    }
}

#[test]
fn e2fsck_has_nothing_to_say_about_random_trees_and_sizes() {
    for seed in 0..120 {
        let mut random = Random(seed);
        let count = random.below(400);
        let entries = random_tree(&mut random, count);
        let mut parameters = parameters(Bytes(sizes(&mut random) * 4096));
        parameters.inodes = match random.below(3) {
            0 => InodeCount::PerBytes(1024 << random.below(5)),
            _ => InodeCount::Auto,
        };
        parameters.journal = match random.below(6) {
            0 => Journal::None,
            1 => Journal::Blocks(1024 + random.below(5000) as u32),
            _ => Journal::Auto,
        };
        parameters.reserved_percent = random.below(51) as u8;
        if random.below(8) == 0 {
            parameters.hash_seed = [0; 16];
        }
        let plan = plan_or_grow(&entries, &mut parameters);
        Image::write(&plan).assert_clean(&format!("seed {seed}: {parameters:?}"));
    }
}
