// Every invocation copies four words at a time, all invocations together side by side: a stream of reads and writes.
struct CopyParams {
    num_vec4: u32,
}

@group(0) @binding(PARAMS_BINDING) var<uniform>             params: CopyParams;
@group(0) @binding(WORDS_BINDING)  var<storage, read>       words: array<vec4<u32>>;  // [num_vec4]
@group(0) @binding(COPIED_BINDING) var<storage, read_write> copied: array<vec4<u32>>; // [num_vec4]

@compute @workgroup_size(WORKGROUP_SIZE)
fn copy_words(
    @builtin(global_invocation_id) invocation: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
) {
    let stride = num_workgroups.x * WORKGROUP_SIZE;
    for (var at = invocation.x; at < params.num_vec4; at += stride) {
        copied[at] = words[at];
    }
}
