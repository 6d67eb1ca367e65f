//! `hardtack cat`: a file inside an image, as it is.

use super::{Context, Failure, image_path};
use std::ffi::OsString;
use std::io::{self, Read};

/// How much of the file is in memory at once, in bytes.
const BUFFER: usize = 256 << 10;

/// Arguments of `hardtack cat`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "IMAGE:PATH starts at the root filesystem, with the boot partition where /etc/fstab mounts it;
IMAGE:N:PATH starts at the top of partition N.

Examples:
  hardtack cat out/minimal.img:/etc/fstab
  hardtack cat out/minimal.img:/boot/firmware/config.txt
  hardtack cat out/minimal.img:1:/config.txt"
)]
pub struct Args {
    /// A file inside an image
    #[arg(value_name = "IMAGE[:N]:PATH")]
    address: OsString,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<(), Failure> {
    let address = image_path::parse(&args.address)?;
    let Some(path) = &address.path else {
        // That there is no such image is the better answer to a name that was mistyped.
        image_path::opened(&address.image)?;
        return Err(Failure::input("no file is named, only an image").hint("hardtack cat IMAGE:/etc/fstab"));
    };
    let image = image_path::opened(&address.image)?;
    let tree = image.files(address.part).map_err(image_path::failure)?;
    let node = tree.look_up(path).map_err(Failure::input)?;
    let content = match &node.kind {
        crate::tree::Kind::File(content) => content,
        other => return Err(Failure::input(format!("{path} is a {}, not a file", other.word()))),
    };
    let mut reader = content.reader();
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => context.render.bytes(&buffer[..len])?,
            Err(error) => {
                let message = format!("cannot read {path} in `{}`: {error}", address.image.display());
                let cut_off = error.kind() == io::ErrorKind::UnexpectedEof;
                return Err(if cut_off { Failure::input(message) } else { Failure::ours(message) });
            }
        }
    }
}
