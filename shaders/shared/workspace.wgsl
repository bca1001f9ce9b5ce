// Memory between dispatches, bound once for all that lies in it. Words, which are converted by bits: nobody changes them.
@group(0) @binding(WORKSPACE_BINDING) var<storage, read_write> workspace: array<vec4<u32>>;
