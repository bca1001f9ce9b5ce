//! `wattn` alone: `recall` on the text that comes with the program.

use clap::Parser as _;

use crate::args::{Cli, Command};
use crate::failure::Failure;
use crate::files;
use crate::recall::{self, Job};

/// Origin and licence are in `sample.md` beside it. 32 KiB at 4 heads of 128 + 256 columns are 1.6 TFLOP, which two CPU
/// cores do in about 15 seconds.
const SAMPLE: &[u8] = include_bytes!("sample.txt");

const PICTURE: &str = "wattn-recall.png";

const NEXT: &str = "
next:
  wattn recall FILE                         the same on a text of yours
  wattn recall FILE --dtype f16 --heads 8   half the memory, more heads
  wattn recall FILE --attention hip         sparse attention beside dense
  wattn attend --input IN --output OUT      attention on tensors of yours
  wattn info                                the GPUs of this machine
";

pub(crate) fn run() -> Result<(), Failure> {
    // The defaults of `recall` live in its arguments and nowhere else.
    let cli = Cli::try_parse_from(["wattn", "recall", "sample"]).map_err(|error| Failure::Usage(error.to_string()))?;
    let Some(Command::Recall(args)) = cli.command else {
        return Err(Failure::Usage("the demo needs the `recall` command".to_owned()));
    };
    let picture = std::env::temp_dir().join(PICTURE);
    files::print("Every byte of a text, predicted by attention over the bytes before it; nothing is trained.\n\n")?;
    recall::run_job(&Job {
        name: "part of \"The Rust Programming Language\"".to_owned(),
        text: SAMPLE.to_vec(),
        options: args.options,
        selectors: Vec::new(),
        mask_png: None,
        png: Some(picture),
        json: None,
    })?;
    files::print(NEXT)
}
