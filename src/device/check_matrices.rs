//! The trial of a device's matrices before their first use.

use crate::device::matrix_verdict::{MatrixVerdict, VerdictKey};
use crate::error::one_line;
use crate::{
    Context, ContextOptions, DType, Error, Layout, MatrixCheck, Pending, Pipeline, Result, Slots, Step, TensorView,
};

const LABEL: &str = "wattn.check_matrices";

/// An edit of the check's text for the device that runs it, used by tests.
#[doc(hidden)]
pub type Edit = fn(&wgpu::Device, String) -> String;

/// The text unchanged.
pub(crate) fn unedited(_: &wgpu::Device, text: String) -> String {
    text
}

impl Context {
    /// Tries the device's matrix products: multiplies whole numbers through workgroup memory, as attention does, and compares the result
    /// with the known product. The returned context shares device and pipelines. If the result is wrong or the driver refuses the shader,
    /// its caps have [no matrices][caps-edge] and [say why][caps-fault], so that plans take the next tier; otherwise they have what the
    /// device reports, whatever an earlier trial found.
    ///
    /// [`Context::request`] and [`Context::open`] do this themselves. A context made from a program's own device runs nothing on it
    /// unasked; call this once and keep the returned context.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`], [`Error::Poll`], [`Error::Map`].
    ///
    /// # Cost
    /// Nothing where the device reports no matrices that kernels would use. Otherwise compiles one small shader, allocates 36 KiB for a
    /// moment, submits one workgroup and waits for it. Compilation dominates: on lavapipe 1.4 s of one core the first time, and 0.05 s once
    /// the driver has kept the shader.
    ///
    /// [caps-edge]: crate::DeviceCaps::matrix_edge
    /// [caps-fault]: crate::DeviceCaps::matrix_fault
    pub fn check_matrices(&self) -> Pending<'_, Result<Self>> {
        Pending::new(self.check_matrices_edited(unedited))
    }

    /// [`Context::check_matrices`] with an edited text. For tests that make the product wrong.
    #[doc(hidden)]
    pub async fn check_matrices_edited(&self, edit: Edit) -> Result<Self> {
        let Some(check) = MatrixCheck::of(self.caps()) else { return Ok(self.clone()) };
        let verdict = match self.multiply(&check, edit).await {
            Ok(found) => check.fault(&found).map_or(MatrixVerdict::Right, MatrixVerdict::Faulty),
            Err(Error::Validation { message, .. }) => {
                MatrixVerdict::Faulty(format!("the shader that tries it is refused: {}", one_line(&message)))
            }
            // The error may pass: it says nothing about the matrices, and no verdict is kept.
            Err(error) => return Err(error),
        };
        if let Some(folder) = self.kept_folder() {
            self.keep_verdict(VerdictKey::new(&self.device().adapter_info(), &check).unsaved(folder, &verdict));
        }
        Ok(self.with_matrix_fault(verdict.fault()))
    }

    /// Opens a device and tries its matrices, unless a kept verdict gives the answer.
    pub(crate) async fn open_edited(adapter: &wgpu::Adapter, options: &ContextOptions, edit: Edit) -> Result<Self> {
        let context = Self::open_untried(adapter, options).await?;
        let Some(check) = MatrixCheck::of(context.caps()) else { return Ok(context) };
        let key = VerdictKey::new(&context.device().adapter_info(), &check);
        if let Some(verdict) = context.kept_folder().and_then(|folder| key.read(folder)) {
            return Ok(context.with_matrix_fault(verdict.fault()));
        }
        let error = match context.check_matrices_edited(edit).await {
            Ok(tried) => return Ok(tried),
            Err(error) => error,
        };
        let fault = Some(format!("it could not be tried: {}", one_line(&error.to_string())));
        // A lost device does not come back, but another one may work.
        let usable = if context.check_lost().is_err() { Self::open_untried(adapter, options).await? } else { context };
        Ok(usable.with_matrix_fault(fault))
    }

    /// Runs the check on the device, with a text that `edit` may have changed.
    async fn multiply(&self, check: &MatrixCheck, edit: Edit) -> Result<Vec<f32>> {
        let len = check.expected().len();
        let variant = check.specialization();
        let pipeline = Pipeline::edited(self, &variant, edit(self.device(), variant.wgsl()))?;
        let found = self.scoped("trying matrix products", || {
            let device = self.device();
            let operands = check.operands_f16();
            let operands = self.upload(LABEL, bytemuck::cast_slice(&operands), wgpu::BufferUsages::STORAGE);
            let found = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(LABEL),
                size: len as u64 * 4,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            let slots = Slots::new().buffer("operands", &operands).buffer("found", &found);
            let step = Step::new(self, &pipeline, &slots, &[[1; 3]], &[[0; 0]; 0])?;
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(LABEL) });
            step.encode(&mut encoder);
            self.queue().submit([encoder.finish()]);
            Ok::<_, Error>(found)
        })??;
        let view = TensorView::new(&found, DType::F32, Layout::seq_major(1, 1, 1, len as u32)); // a few thousand
        Ok(self.read::<f32>(view).await?.into_data())
    }
}
