// Memory that dispatches share, bound once for all its contents. It holds words, so that f32 are stored and loaded bit by bit.
@group(0) @binding(WORKSPACE_BINDING) var<storage, read_write> workspace: array<vec4<u32>>;
