//! Submitted work, and the two ways to wait for it.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context as Task, Poll};

/// On the web, futures stay on the thread that made them.
#[cfg(not(target_arch = "wasm32"))]
mod boxed {
    pub(crate) trait Portable: Send {}
    impl<T: Send> Portable for T {}
    pub(super) type Boxed<'a, T> = core::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
}

#[cfg(target_arch = "wasm32")]
mod boxed {
    pub(crate) trait Portable {}
    impl<T> Portable for T {}
    pub(super) type Boxed<'a, T> = core::pin::Pin<Box<dyn Future<Output = T> + 'a>>;
}

pub(crate) use boxed::Portable;

/// Work that has begun. `.await` it, or `wait()` for it on this thread, which the web does not allow.
///
/// The call that returns it has checked its arguments and submitted its first work. Errors of both are returned here, too.
///
/// A future that is polled by an executor polls the device itself and asks to be polled again: it needs no help, and is
/// busy until the device is done. `wait` sleeps in the driver.
///
/// ```
/// # use wattn::{AttentionProblem, AttentionShape, DType, Engine, HostInputs, HostTensor};
/// # let shape = AttentionShape {
/// #     batch_size: 1, seq_len_q: 2, seq_len_kv: 2, num_q_heads: 1, num_kv_heads: 1, head_dim: 4, head_dim_v: 4,
/// # };
/// # let problem = AttentionProblem::new(shape, DType::F32);
/// # let [q, k, v] = [problem.q_shape(), problem.k_shape(), problem.v_shape()].map(HostTensor::<f32>::zeros);
/// # let (engine, inputs) = (Engine::cpu(), HostInputs::new(&q, &k, &v));
/// let waited = engine.attend(&problem, &inputs).wait()?;
/// # pollster::block_on(async {
/// let awaited = engine.attend(&problem, &inputs).await?;
/// assert_eq!(waited, awaited);
/// # Ok::<(), wattn::Error>(())
/// # })?;
/// # Ok::<(), wattn::Error>(())
/// ```
#[must_use = "its result, and its error, come out when it is awaited or waited for"]
pub struct Pending<'a, T> {
    future: boxed::Boxed<'a, T>,
}

impl<'a, T: 'a> Pending<'a, T> {
    pub(crate) fn new(future: impl Future<Output = T> + Portable + 'a) -> Self {
        Self { future: Box::pin(future) }
    }

    /// Work that is already done.
    pub(crate) fn ready(result: T) -> Self
    where
        T: Portable,
    {
        Self::new(core::future::ready(result))
    }

    /// Waits on this thread.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(self) -> T {
        let _mark = waiting::Mark::set();
        pollster::block_on(self.future)
    }
}

impl<'a, T: 'a> Pending<'a, crate::Result<T>> {
    /// Work whose submission may have failed.
    pub(crate) fn begun<F>(begun: crate::Result<F>) -> Self
    where
        F: Future<Output = crate::Result<T>> + Portable + 'a,
    {
        Self::new(async move { begun?.await })
    }
}

impl<T> Future for Pending<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<T> {
        self.future.as_mut().poll(task)
    }
}

impl<T> core::fmt::Debug for Pending<'_, T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// Polls until the work is done inside [`Pending::wait`], and once elsewhere.
pub(crate) fn poll_type() -> wgpu::PollType {
    #[cfg(not(target_arch = "wasm32"))]
    if waiting::is_set() {
        return wgpu::PollType::wait_indefinitely();
    }
    wgpu::PollType::Poll
}

#[cfg(not(target_arch = "wasm32"))]
mod waiting {
    use core::cell::Cell;

    thread_local! {
        /// Whether this thread is inside [`Pending::wait`](super::Pending::wait).
        static WAITING: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn is_set() -> bool {
        WAITING.get()
    }

    /// Sets the mark, and restores its former value when dropped.
    pub(super) struct Mark(bool);

    impl Mark {
        pub(super) fn set() -> Self {
            Self(WAITING.replace(true))
        }
    }

    impl Drop for Mark {
        fn drop(&mut self) {
            WAITING.set(self.0);
        }
    }
}

#[cfg(all(test, not(target_arch = "wasm32")))]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_waited_for_under_wait_alone() {
        let waits = || Pending::new(core::future::poll_fn(|_| Poll::Ready(waiting::is_set())));
        assert!(!pollster::block_on(waits()));
        assert!(waits().wait());
        let nested = Pending::new(async move { (waits().wait(), waiting::is_set()) });
        assert_eq!(nested.wait(), (true, true));
        assert!(!waiting::is_set());
    }
}
