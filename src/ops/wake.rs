//! Wakes a device before it is measured: clocks of an idle GPU are a fraction of those under load, and take half a second to rise.

use std::time::{Duration, Instant};

use crate::{DeviceCaps, Result};

/// The rate holds when it has not risen for this long.
const HOLDS: Duration = Duration::from_millis(150);

/// Limit on the time that a device is given.
const AT_MOST: Duration = Duration::from_millis(800);

/// Share of the shortest time so far that counts as faster.
const FASTER: f64 = 0.97;

/// Repeats `work`, which waits for the device, until it gets no faster. Does nothing on software devices, which have no clocks of their
/// own.
pub(super) fn wake(caps: &DeviceCaps, work: impl FnMut() -> Result<()>) -> Result<()> {
    if caps.software { Ok(()) } else { until_steady(work) }
}

fn until_steady(mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    let (mut shortest, mut since) = (f64::INFINITY, begin);
    while begin.elapsed() < AT_MOST && since.elapsed() < HOLDS {
        let start = Instant::now();
        work()?;
        let seconds = start.elapsed().as_secs_f64();
        if seconds < FASTER * shortest {
            (shortest, since) = (seconds, Instant::now());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that gets faster for 300 ms, and one that never settles.
    #[test]
    fn work_goes_on_while_it_gets_faster() {
        let begin = Instant::now();
        let rising = || {
            std::thread::sleep(
                Duration::from_millis(30).saturating_sub(begin.elapsed() / 12).max(Duration::from_millis(5)),
            );
            Ok(())
        };
        until_steady(rising).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());

        let (begin, mut milliseconds) = (Instant::now(), 90.0);
        let falling = || {
            milliseconds *= 0.9;
            std::thread::sleep(Duration::from_secs_f64(milliseconds / 1e3));
            Ok(())
        };
        until_steady(falling).unwrap();
        assert!(begin.elapsed() < AT_MOST + Duration::from_millis(500), "{:?}", begin.elapsed());
    }

    #[test]
    fn errors_and_software_end_it() {
        let error = || Err(crate::Error::DeviceLost { message: "gone".to_owned() });
        assert!(until_steady(error).is_err());
        let software = DeviceCaps { software: true, ..DeviceCaps::BASELINE };
        wake(&software, || panic!("software has no clocks")).unwrap();
    }
}
