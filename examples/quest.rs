//! Quest (*Query-Aware Sparsity for Efficient Long-Context LLM Inference*) made of public operators: the smallest and the largest value of
//! each channel of a page of keys bound the score of every key in it, and attention reads the pages with the largest bounds. Decoding as
//! published; a prompt in blocks of 64 queries, where a page's bound is the largest over the block's rows.

use wattn::{
    Attention, AttentionArgs, AttentionPlan, AttentionProblem, AttentionShape, BlockListSpec, BlockListsView,
    BlockScore, BlockScoreArgs, BlockScoreProblem, BlockScoring, Context, ContextOptions, DType, HostBlockLists,
    HostInputs, HostTensor, Layout, Mask, Pool, PoolArgs, PoolProblem, Pooling, Reduction, SoftwareAdapters,
    TensorView, TensorViewMut, TopK, TopKArgs, TopKProblem, U32View, cpu,
};
use wgpu::util::DeviceExt as _;

const PAGE: u32 = 16;

type Found = wattn::Result<(HostBlockLists, HostTensor)>;

/// Keys of a page, the operators for bounds, scores and best pages, and attention to these pages.
struct Quest {
    pool: PoolProblem,
    score: BlockScoreProblem,
    best: TopKProblem,
    attend: AttentionProblem,
}

impl Quest {
    /// Reads `budget` keys for each query head and block of queries; the queries' own pages are always among them.
    fn new(shape: AttentionShape, budget: u32, block_size_q: u32) -> Self {
        let own_pages = (block_size_q - 1).div_ceil(PAGE) + 1;
        let pages = (budget / PAGE).max(3).max(own_pages);
        let score = BlockScoreProblem::new(shape, DType::F32, PAGE, BlockScoring::Bound)
            .with_query_blocks(block_size_q, Reduction::Max);
        let best = TopKProblem::new(score.scores_shape(), pages).with_block_size(PAGE).with_forced_last(own_pages);
        let lists = BlockListSpec::new(block_size_q, PAGE, pages);
        let attend = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal).with_blocks(lists);
        Self { pool: PoolProblem::new(shape.k(), DType::F32, PAGE, Pooling::MinMax), score, best, attend }
    }

    fn on_cpu(&self, [q, k, v]: [&HostTensor; 3]) -> Found {
        let scores = cpu::block_scores(&self.score, q, &cpu::pool(&self.pool, k, None)?, None)?;
        let lists = cpu::top_k(&self.best, &scores, None)?;
        cpu::attend(&self.attend, &HostInputs::new(q, k, v).with_blocks(&lists)).map(|result| (lists, result.out))
    }

    /// Computes the same by the definitions, in f64. (The numbers of this example are exact in f32 as well.)
    fn by_oracle(&self, [q, k, v]: [&HostTensor; 3]) -> Found {
        let narrow = |shape, numbers: Vec<f64>| HostTensor::new(shape, numbers.iter().map(|&x| x as f32).collect());
        let summaries = narrow(self.pool.summaries_shape(), cpu::oracle::pool(&self.pool, k, None)?)?;
        let scores = cpu::oracle::block_scores(&self.score, q, &summaries, None)?;
        let lists = cpu::oracle::top_k(&self.best, &narrow(self.score.scores_shape(), scores)?, None)?;
        let exact = cpu::oracle::attend(&self.attend, &HostInputs::new(q, k, v).with_blocks(&lists))?;
        Ok((lists, exact.out))
    }

    /// Encodes everything in one submission, with nothing read back in between.
    fn on_gpu(&self, ctx: &Context, inputs: [&HostTensor; 3]) -> Found {
        let tensor = |shape: [u32; 4], data: &[f32]| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            let contents = bytemuck::cast_slice(data);
            let descriptor = wgpu::util::BufferInitDescriptor { label: Some("quest"), contents, usage };
            let [batch, seq, heads, dim] = shape;
            (ctx.device().create_buffer_init(&descriptor), Layout::seq_major(batch, seq, heads, dim))
        };
        let room = |shape: [u32; 4]| tensor(shape, &vec![0.0; shape.iter().product::<u32>() as usize]);
        let [q, k, v] = inputs.map(|input| tensor(input.shape(), input.data()));
        let [batch, sets, q_blocks, pages] = self.best.lists_shape();
        let summaries = room(self.pool.summaries_shape());
        let [scores, out] = [self.score.scores_shape(), self.attend.out_shape()].map(room);
        let [indices, counts] = [[batch, sets, q_blocks, pages], [batch, sets, q_blocks, 1]].map(room);
        let (len, num_lists) = (indices.1.num_elements(), counts.1.num_elements());
        let lists = BlockListsView::new(U32View::new(&indices.0, 0, len), U32View::new(&counts.0, 0, num_lists));
        let pool = Pool::new(ctx, &self.pool)?.bind(PoolArgs::new(read(&k), write(&summaries)))?;
        let args = BlockScoreArgs::new(read(&q), read(&summaries), write(&scores));
        let score = BlockScore::new(ctx, &self.score)?.bind(args)?;
        let best = TopK::new(ctx, &self.best)?.bind(TopKArgs::new(read(&scores), lists))?;
        let args = AttentionArgs::new(read(&q), read(&k), read(&v), write(&out)).with_blocks(lists);
        let attend = Attention::prepare(ctx, &AttentionPlan::new(&self.attend, ctx.caps())?)?.bind(args)?;
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        [pool, score, best].iter().for_each(|operator| operator.encode(&mut encoder));
        attend.encode(&mut encoder);
        ctx.queue().submit([encoder.finish()]);
        let bits = |tensor| ctx.read::<f32>(read(tensor)).wait().map(|read| read.into_data());
        let [indices, counts] =
            [bits(&indices)?, bits(&counts)?].map(|all| all.into_iter().map(f32::to_bits).collect());
        Ok((HostBlockLists::new(self.best.lists_shape(), indices, counts)?, ctx.read(read(&out)).wait()?))
    }
}

fn read((buffer, layout): &(wgpu::Buffer, Layout)) -> TensorView<'_> {
    TensorView::new(buffer, DType::F32, *layout)
}

fn write((buffer, layout): &(wgpu::Buffer, Layout)) -> TensorViewMut<'_> {
    TensorViewMut::new(buffer, DType::F32, *layout)
}

fn main() -> wattn::Result<()> {
    let ctx = Context::request(&ContextOptions::default().with_software(SoftwareAdapters::Accept)).wait()?;
    for (name, seq_len_q, block_size_q) in [("decoding", 1, 1), ("prompt", 300, 64)] {
        let (batch_size, seq_len_kv, num_q_heads, num_kv_heads, head_dim, head_dim_v) = (1, 2000, 4, 2, 64, 64);
        let shape =
            AttentionShape { batch_size, seq_len_q, seq_len_kv, num_q_heads, num_kv_heads, head_dim, head_dim_v };
        // Eighths from -1 to 1, so that sums are exact and bounds the same everywhere.
        let painted = |shape: [u32; 4], step: u64| {
            let number = |i: u64| ((i * step + i / 64 * 31) % 8209 % 17) as f32 / 8.0 - 1.0;
            HostTensor::new(shape, (0..shape.iter().map(|&n| u64::from(n)).product()).map(number).collect())
        };
        let [q, k, v] = [painted(shape.q(), 7)?, painted(shape.k(), 11)?, painted(shape.v(), 13)?];
        let quest = Quest::new(shape, 256, block_size_q);
        let (lists, exact) = quest.by_oracle([&q, &k, &v])?;
        for (got, out) in [quest.on_cpu([&q, &k, &v])?, quest.on_gpu(&ctx, [&q, &k, &v])?] {
            assert_eq!(got, lists, "other pages than those of the definition");
            let off = out.data().iter().zip(exact.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-5, "the result is wrong");
            println!("{name}: {} of 125 pages, off by {off:.0e}", lists.list(0, 0, 0).len());
        }
    }
    println!("the pages of the definition, on the CPU and {}", ctx.describe());
    Ok(())
}
