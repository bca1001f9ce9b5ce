//! Files that are nearly valid: bytes changed, cut, doubled and moved, numbers at their limits, headers that still fit.

use fastrand::Rng;

/// Numbers that readers tend to forget.
const NUMBERS: [&str; 24] = [
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "7",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "-1e308",
    "1e400",
    "1e-400",
    "0.5",
    "null",
    "1e9",
];

/// Values that may replace any number.
const VALUES: [&str; 12] = [
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "[[[]]]",
    "\"\\u0000\"",
    "NaN",
    "Infinity",
    "-Infinity",
    "{\"type\":\"x\"}",
    "[1,2,3,4]",
];

/// A seed, changed in a few places.
pub(crate) fn mutate(seed: &[u8], others: &[Vec<u8>], random: &mut Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    // The header of safetensors: most changes of the header alone would fail at its length.
    let header = header_of(&bytes);
    for _ in 0..random.usize(1..4) {
        match random.u32(0..10) {
            0..5 => replace_value(&mut bytes, random),
            5 => flip(&mut bytes, random),
            6 => cut(&mut bytes, random),
            7 => double(&mut bytes, random),
            8 => splice(&mut bytes, others, random),
            _ => insert(&mut bytes, random),
        }
    }
    if let (Some(end), true) = (header, bytes.len() > 8) {
        let length = |end: usize| (end as u64 - 8).to_le_bytes();
        // Longer by the length of the file, if that makes sense.
        let end = (end + bytes.len()).saturating_sub(seed.len()).clamp(8, bytes.len());
        if random.u32(0..8) > 0 {
            bytes[..8].copy_from_slice(&length(end));
        }
    }
    bytes
}

/// Where the header of a safetensors file ends.
fn header_of(bytes: &[u8]) -> Option<usize> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    let end = usize::try_from(length).ok()?.checked_add(8)?;
    (end <= bytes.len() && bytes.get(8) == Some(&b'{')).then_some(end)
}

/// A number or word of JSON becomes another.
fn replace_value(bytes: &mut Vec<u8>, random: &mut Rng) {
    let is_word = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'e' | b'+');
    let limit = bytes.len().min(1 << 16);
    if limit == 0 {
        return;
    }
    let from = random.usize(0..limit);
    let Some(start) = (from..limit).find(|&at| bytes[at].is_ascii_digit()) else { return };
    let end = (start..bytes.len()).find(|&at| !is_word(bytes[at])).unwrap_or(bytes.len());
    let value =
        if random.bool() { NUMBERS[random.usize(..NUMBERS.len())] } else { VALUES[random.usize(..VALUES.len())] };
    bytes.splice(start..end, value.bytes());
}

fn range(len: usize, random: &mut Rng) -> core::ops::Range<usize> {
    let start = random.usize(0..=len);
    let most = if random.bool() { 8 } else { len };
    start..(start + random.usize(0..=most)).min(len)
}

fn flip(bytes: &mut [u8], random: &mut Rng) {
    if !bytes.is_empty() {
        let at = random.usize(0..bytes.len());
        bytes[at] = if random.bool() { bytes[at] ^ (1 << random.u32(0..8)) } else { random.u8(..) };
    }
}

fn cut(bytes: &mut Vec<u8>, random: &mut Rng) {
    let range = range(bytes.len(), random);
    bytes.drain(range);
}

fn double(bytes: &mut Vec<u8>, random: &mut Rng) {
    let range = range(bytes.len().min(4096), random);
    let copy = bytes[range.clone()].to_vec();
    bytes.splice(range.end..range.end, copy);
}

fn splice(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Rng) {
    let other = &others[random.usize(0..others.len())];
    let part = other[range(other.len(), random)].to_vec();
    let range = range(bytes.len(), random);
    bytes.splice(range, part);
}

fn insert(bytes: &mut Vec<u8>, random: &mut Rng) {
    let at = random.usize(0..=bytes.len());
    let piece: Vec<u8> = match random.u32(0..4) {
        0 => vec![b'['; random.usize(1..4000)],
        1 => b"{\"a\":".repeat(random.usize(1..800)),
        2 => vec![random.u8(..); random.usize(1..64)],
        _ => (0..random.usize(1..16)).map(|_| random.u8(..)).collect(),
    };
    bytes.splice(at..at, piece);
}
