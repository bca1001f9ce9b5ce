// Has Chrome's compiler, Tint, read every shader of a file that WATTN_DUMP_SHADERS wrote: `node tint.mjs PACKAGE FILE`, where
// PACKAGE is the folder of the npm package `webgpu`. No GPU is needed: its null device compiles and runs nothing.
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [folder, file] = process.argv.slice(2);
const { create } = await import(pathToFileURL(join(folder, 'index.js')));
// The device needs this object, and does not keep it from being collected.
globalThis.gpu = create(['backend=null']);
const adapter = await globalThis.gpu.requestAdapter();
globalThis.device = await adapter.requestDevice({ requiredFeatures: ['shader-f16', 'subgroups'] });
const { device } = globalThis;

// What it finds wrong with a text, as lines; empty where it finds nothing.
async function errors(code) {
    // Errors of the API itself, such as those of limits, come through the scope.
    device.pushErrorScope('validation');
    const info = await device.createShaderModule({ code }).getCompilationInfo();
    const scope = await device.popErrorScope();
    const found = info.messages.filter(({ type }) => type === 'error');
    const lines = found.map(({ lineNum, message }) => `line ${lineNum}: ${message}: ${code.split('\n')[lineNum - 1]}`);
    return lines.length > 0 || scope === null ? lines : [scope.message];
}

const kernel = (head, body) => `${head}
@group(0) @binding(0) var<storage, read_write> words: array<u32>;
var<private> mine: u32;
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) index: u32) {
    mine = words[0];
    ${body}
}`;

// A compiler that refuses nothing proves nothing.
const refused = {
    'a barrier that some invocations miss': kernel('', 'if index < 3u { workgroupBarrier(); }'),
    'a barrier under a value of each invocation': kernel('', 'if mine == 1u { storageBarrier(); }'),
    'a shuffle that some invocations miss':
        kernel('enable subgroups;', 'for (var i = 0u; i < mine; i++) { words[index] = subgroupShuffle(index, i); }'),
    'subgroup operations without their directive': kernel('', 'words[index] = subgroupShuffle(index, 1u);'),
    'u64': kernel('', 'words[index] = u32(u64(index) >> 32u);'),
    'more workgroup memory than there is a variable for': kernel('', 'words[index] = shared_words[index];'),
};
const accepted = kernel('enable f16;\nenable subgroups;', 'words[index] = subgroupShuffle(u32(f16(index)), 1u); workgroupBarrier();');

const failures = {};
const fail = (name, lines) => {
    const kernel = name.split(' ')[0];
    failures[kernel] = (failures[kernel] ?? 0) + 1;
    // One fault of one file is in hundreds of variants: names of all, what is wrong for a few.
    console.error(`FAILED: ${name}${failures[kernel] <= 3 ? `\n  ${lines.join('\n  ')}` : ''}`);
};

for (const [name, code] of Object.entries(refused)) {
    if ((await errors(code)).length === 0) fail(`Tint must refuse ${name}`, [code]);
}
const wrong = await errors(accepted);
if (wrong.length > 0) fail('Tint must accept a shader with all features', wrong);

let compiled = 0;
const leftOut = {};
for await (const line of createInterface({ input: createReadStream(file), crlfDelay: Infinity })) {
    const { name, needs, wgsl } = JSON.parse(line);
    if (needs !== null) {
        const what = `${name.split(' ')[0]} with ${needs}`;
        leftOut[what] = (leftOut[what] ?? 0) + 1;
        continue;
    }
    compiled += 1;
    const lines = await errors(wgsl);
    if (lines.length > 0) fail(name, lines);
}
for (const [what, count] of Object.entries(leftOut)) console.log(`not for browsers: ${what}, ${count} variants`);
for (const [what, count] of Object.entries(failures)) console.error(`FAILED: ${count} of ${what}`);
console.log(`${compiled} variants compiled by Tint`);
device.destroy();
// Nothing compiled is a dump that went wrong.
process.exitCode = Object.keys(failures).length > 0 || compiled === 0 ? 1 : 0;
