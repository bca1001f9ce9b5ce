// Family `number`: single numbers of a tensor, by their place. Here f16, two in a word.
@group(0) @binding(NUMBERS_BINDING) var<storage, read> numbers: array<u32>;

fn number_at(at: u32) -> f32 {
    return unpack2x16float(numbers[at / 2u] >> (at % 2u * 16u)).x;
}
