//! The ids a build gives its disk and filesystems: drawn from the lock, so that the same lock gives the same image.
//!
//! They are names, not secrets. Two cards written from one image share them, as the cards of every published image do;
//! what must differ between devices is made on the device.

use crate::digest::{Hasher, Sha256};

/// The ids of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    seed: Sha256,
}

impl Identity {
    /// The identity that belongs to this lock and profile.
    pub fn of(lock: &Sha256, profile: &str) -> Self {
        let mut hasher = Hasher::new();
        hasher.field(b"hardtack identity 1").field(&lock.0).field(profile.as_bytes());
        Self { seed: hasher.finish().0 }
    }

    /// The disk signature of the MBR; partitions are found by it (`PARTUUID=1234abcd-02`). Never zero, which means "none".
    pub fn disk_id(&self) -> u32 {
        self.number(b"disk").max(1)
    }

    /// The FAT volume's serial number.
    pub fn fat_serial(&self) -> u32 {
        self.number(b"fat")
    }

    /// A UUID for one purpose: 128 drawn bits marked as version 8 (RFC 9562, section 5.8), because they are neither
    /// random nor a time.
    pub fn uuid(&self, purpose: &str) -> [u8; 16] {
        let mut bytes = self.draw(purpose.as_bytes());
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        bytes
    }

    fn number(&self, purpose: &[u8]) -> u32 {
        let bytes = self.draw(purpose);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    fn draw(&self, purpose: &[u8]) -> [u8; 16] {
        let mut hasher = Hasher::new();
        hasher.field(&self.seed.0).field(purpose);
        let digest = hasher.finish().0;
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.0[..16]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_the_lock_and_differ_by_purpose() {
        let one = Identity::of(&Sha256::of(b"lock"), "minimal");
        assert_eq!(one, Identity::of(&Sha256::of(b"lock"), "minimal"));
        assert_ne!(one.uuid("root"), one.uuid("seed"));
        assert_ne!(one.disk_id(), one.fat_serial());
        assert_ne!(one.disk_id(), Identity::of(&Sha256::of(b"lock"), "files").disk_id());
        assert_eq!(one.uuid("root")[6] >> 4, 8);
        assert_eq!(one.uuid("root")[8] >> 6, 2);
    }
}
