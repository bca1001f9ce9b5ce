//! Hashes of every result that tests check, for comparing two builds bit by bit: `tests/bits`.

use std::cell::Cell;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::thread;

use wattn::AttentionOutput;

thread_local! {
    static RECORDED: Cell<u32> = const { Cell::new(0) };
}

/// Appends the hash of a result to `$WATTN_BITS/<test binary>`, under the test's name and the result's number in it. Does nothing where the
/// variable is not set, or in a thread that a test started.
pub fn record(words: impl IntoIterator<Item = u32>) {
    let Some(folder) = env::var_os("WATTN_BITS") else { return };
    // FNV-1a.
    let hash = words
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let number = RECORDED.replace(RECORDED.get() + 1);
    let thread = thread::current();
    // Each test runs in a thread with its name; results in further threads have no order.
    let Some(test) = thread.name() else { return };
    let line = format!("{test} {number} {hash:016x}\n");
    let program = env::current_exe().unwrap();
    // Cargo puts a hash of its own behind a dash.
    let stem = program.file_name().unwrap().to_str().unwrap().rsplit_once('-').unwrap().0.to_owned();
    fs::create_dir_all(&folder).unwrap();
    let path = Path::new(&folder).join(stem);
    // One write for each line, so that lines of several threads stay whole.
    OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
}

/// [`record`]s an attention result.
pub fn record_output(output: &AttentionOutput) {
    record(output.out.data().iter().chain(output.lse.data()).map(|x| x.to_bits()));
}
