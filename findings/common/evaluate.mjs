// Evaluates WGSL expressions on the first device that Dawn finds, one invocation each, and compares with what was seen before.
//
// Standard input has one case a line, `label ; expression ; inputs ; bits`: the expression has a type of 32 bits and reads its inputs,
// `inf`, `nan` and numbers, as `a[0]`, `a[1]`, ...; `bits` is the result in hexadecimal. `one` is 1 in a way that only the driver's
// compiler sees through, not Tint. Exits with 1 if a result differs.
import { readFileSync } from "node:fs";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);
const gpu = create([]);
const adapter = await gpu.requestAdapter();
const features = adapter.features.has("shader-f16") ? ["shader-f16"] : [];
const device = await adapter.requestDevice({ requiredFeatures: features });
console.log(`device: ${adapter.info.vendor} ${adapter.info.architecture}, ${adapter.info.description}`);

const number = (text) => (text === "inf" ? Infinity : text === "nan" ? NaN : Number(text));
const buffer = (usage) => device.createBuffer({ size: 32, usage });
let changed = 0;
const cases = readFileSync(0, "utf8").split("\n").filter((line) => line.includes(";"));
if (cases.length === 0) throw new Error("no cases given");

for (const line of cases) {
    const [label, expression, inputs, bits] = line.split(";").map((part) => part.trim());
    const code = `${features.length ? "enable f16;" : ""}
        @group(0) @binding(0) var<storage, read> a: array<f32, 8>;
        @group(0) @binding(1) var<storage, read_write> result: u32;
        @compute @workgroup_size(1) fn main() { let used = a[7]; let one = 1.0f; result = bitcast<u32>(${expression}); }`;
    const module = device.createShaderModule({ code });
    const [visibility, types] = [GPUShaderStage.COMPUTE, ["read-only-storage", "storage"]];
    const layout = device.createBindGroupLayout({
        entries: types.map((type, binding) => ({ binding, visibility, buffer: { type } })),
    });
    const pipeline = await device.createComputePipelineAsync({
        layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }), compute: { module },
    });
    const [a, result, read] = [GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST, GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC,
        GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST].map(buffer);
    device.queue.writeBuffer(a, 0, new Float32Array(inputs ? inputs.split(",").map((text) => number(text.trim())) : [0]));
    const entries = [a, result].map((buffer, binding) => ({ binding, resource: { buffer } }));
    const encoder = device.createCommandEncoder(), pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout, entries }));
    pass.dispatchWorkgroups(1);
    pass.end();
    encoder.copyBufferToBuffer(result, 0, read, 0, 4);
    device.queue.submit([encoder.finish()]);
    await read.mapAsync(GPUMapMode.READ);
    const words = new Uint32Array(read.getMappedRange().slice(0, 4));
    const found = words[0].toString(16).padStart(8, "0");
    const differs = found !== bits ? `  CHANGED, it was ${bits}` : "";
    changed += differs ? 1 : 0;
    const value = expression.startsWith("pack") ? "" : `  as f32 ${new Float32Array(words.buffer)[0]}`;
    console.log(`  ${label.padEnd(44)} ${found}${value}${differs}`);
}
process.exit(changed ? 1 : 0);
