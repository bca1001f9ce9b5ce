//! Inputs whose sums of products are exact.

use crate::{Element, HostInputs, HostTensor};

/// q, k and v: independent multiples of 1/64 from -1 to 1. f16 and bf16 hold them exactly, and f32 their products and the sums over heads
/// of any width: scores do not depend on the order of a device's sums, nor do the selected blocks.
#[derive(Debug)]
pub(crate) struct Tensors<T = f32>([HostTensor<T>; 3]);

impl Tensors {
    pub(crate) fn random(shapes: [[u32; 4]; 3]) -> Self {
        let mut seed = 0;
        Self(shapes.map(|shape| {
            seed += 1;
            random(shape, seed)
        }))
    }

    /// The same numbers in another type.
    pub(super) fn narrowed<T: Element>(&self) -> Tensors<T> {
        Tensors(self.0.each_ref().map(|tensor| {
            let data = tensor.data().iter().map(|&x| T::from_f32(x)).collect();
            HostTensor::new(tensor.shape(), data).unwrap_or_default() // as many elements as before
        }))
    }
}

impl<T: Element> Tensors<T> {
    pub(crate) fn inputs(&self) -> HostInputs<'_, T> {
        let [q, k, v] = &self.0;
        HostInputs::new(q, k, v)
    }
}

/// From a linear congruential generator (Knuth's MMIX).
fn random(shape: [u32; 4], seed: u64) -> HostTensor {
    let mut state = seed;
    let mut tensor = HostTensor::zeros(shape);
    for x in tensor.data_mut() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // 128 values from -64 to 63, from the upper bits, which are the random ones.
        *x = ((state >> 57) as f32 - 64.0) / 64.0;
    }
    tensor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_types_hold_the_values() {
        let tensors = Tensors::random([[1, 3, 2, 8]; 3]);
        let values = tensors.inputs().q.data();
        assert!(values.iter().all(|x| (-1.0..1.0).contains(x) && (x * 64.0).fract() == 0.0));
        assert!(values.windows(2).any(|pair| pair[0] != pair[1]));
        assert_ne!(tensors.inputs().q, tensors.inputs().k);
        let f16 = tensors.narrowed::<half::f16>();
        let bf16 = tensors.narrowed::<half::bf16>();
        for (index, x) in tensors.inputs().v.data().iter().enumerate() {
            assert_eq!(f16.inputs().v.data()[index].to_f32(), *x);
            assert_eq!(bf16.inputs().v.data()[index].to_f32(), *x);
        }
    }
}
