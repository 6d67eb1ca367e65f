//! The hash of a name in an indexed directory: half MD4, with names taken as unsigned bytes
//! (Documentation/filesystems/ext4/directory.rst; the rounds are those of MD4, RFC 1320, with fewer words).

/// Hashes names with one filesystem's seed.
#[derive(Clone, Copy, Debug)]
pub struct NameHash {
    start: [u32; 4],
}

/// The initial state of MD4 (RFC 1320, 3.3), used when a filesystem has no seed.
const MD4_START: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
/// The constants of the second and third round of MD4: the square roots of 2 and 3 in 2.30 fixed point.
const ROOT_2: u32 = 0x5a82_7999;
const ROOT_3: u32 = 0x6ed9_eba1;
/// Marks the end of a directory in a file offset, so no name may have it as its hash.
const END: u32 = 0x7fff_ffff << 1;
const WORDS: usize = 8;

impl NameHash {
    /// For the seed in a superblock (`s_hash_seed`).
    pub fn new(seed: &[u8; 16]) -> Self {
        let mut start = [0; 4];
        for (word, bytes) in start.iter_mut().zip(seed.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self { start: if start == [0; 4] { MD4_START } else { start } }
    }

    /// The 32-bit hash of a name. Its lowest bit is always clear: an index uses that bit to say that a block goes
    /// on with the hash the block before it ended with.
    pub fn of(&self, name: &[u8]) -> u32 {
        let mut state = self.start;
        let mut rest = name;
        while !rest.is_empty() {
            half_md4(&mut state, &words(rest));
            rest = rest.get(4 * WORDS..).unwrap_or_default();
        }
        let hash = state[1] & !1;
        if hash == END { END - 2 } else { hash }
    }
}

/// The next eight words of a name, big end first, filled up with a pattern of the length that is left.
fn words(rest: &[u8]) -> [u32; WORDS] {
    // A name has at most 255 bytes.
    let length = rest.len() as u32 & 0xff;
    let pad = length | length << 8 | length << 16 | length << 24;
    let mut words = [pad; WORDS];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        *word = bytes.iter().fold(pad, |word, byte| word << 8 | u32::from(*byte));
    }
    words
}

fn half_md4(state: &mut [u32; 4], x: &[u32; WORDS]) {
    let choose = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let majority = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let parity = |x: u32, y: u32, z: u32| x ^ y ^ z;

    let mut s = *state;
    let mut round = |f: fn(u32, u32, u32) -> u32, add: u32, order: [usize; WORDS], turns: [u32; 4]| {
        for (step, word) in order.into_iter().enumerate() {
            // The four words of the state change places with each step: a, d, c, b.
            let at = |k: usize| (k + 4 - step % 4) % 4;
            let mixed = f(s[at(1)], s[at(2)], s[at(3)]);
            let sum = s[at(0)].wrapping_add(mixed).wrapping_add(x[word]).wrapping_add(add);
            s[at(0)] = sum.rotate_left(turns[step % 4]);
        }
    };
    round(choose, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]);
    round(majority, ROOT_2, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]);
    round(parity, ROOT_3, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]);
    for (word, mixed) in state.iter_mut().zip(s) {
        *word = word.wrapping_add(mixed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: [u8; 16] =
        [1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];

    /// Values of `debugfs -R "dx_hash -h 4 …"`, e2fsprogs 1.47.0 (4 is half MD4 over unsigned bytes).
    #[test]
    fn debugfs_gives_the_same_hashes() {
        let hash = NameHash::new(&SEED);
        assert_eq!(hash.of(b"a"), 0x35dc_0cc4);
        assert_eq!(hash.of(b"hello"), 0xa26e_4a80);
        assert_eq!(hash.of(b"exactly-thirty-two-bytes-long-xx"), 0xa3b7_2ae0);
        assert_eq!(hash.of(b"exactly-thirty-three-bytes-long-x"), 0xfe5b_cdae);
        assert_eq!(hash.of(&[b'n'; 255]), 0x3df4_c112);
        // With signed bytes this would be 0xff329f74.
        assert_eq!(hash.of("été".as_bytes()), 0x3544_75ae);
        assert_eq!(NameHash::new(&[0; 16]).of(b"hello"), 0x1746_da32);
    }
}
