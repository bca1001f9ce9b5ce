// Family `number`: single numbers of a tensor, by their place. Here bf16, two in a word: each is the upper half of an f32.
@group(0) @binding(NUMBERS_BINDING) var<storage, read> numbers: array<u32>;

fn number_at(at: u32) -> f32 {
    return bitcast<f32>((numbers[at / 2u] >> (at % 2u * 16u)) << 16u);
}
