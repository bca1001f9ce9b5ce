"""What evaluate.mjs does, through wgpu-native, whose compiler is naga: the same cases, on the first device that it finds."""
import logging
import sys

import numpy
import wgpu
from wgpu.backends import wgpu_native

logging.getLogger("wgpu").setLevel(logging.CRITICAL)
adapter = wgpu.gpu.enumerate_adapters_sync()[0]
device = adapter.request_device_sync()
print(f"device: {adapter.info['device']}, {adapter.info['description']}; wgpu-native {wgpu_native.__version__}")

changed = 0
cases = [line for line in sys.stdin if ";" in line]
if not cases:
    sys.exit("no cases given")
for line in cases:
    label, expression, inputs, bits = (part.strip() for part in line.split(";"))
    code = f"""
        @group(0) @binding(0) var<storage, read> a: array<f32, 8>;
        @group(0) @binding(1) var<storage, read_write> result: u32;
        @compute @workgroup_size(1) fn main() {{ let used = a[7]; let one = 1.0f; result = bitcast<u32>({expression}); }}"""
    kinds = [wgpu.BufferBindingType.read_only_storage, wgpu.BufferBindingType.storage]
    layout = device.create_bind_group_layout(entries=[
        {"binding": binding, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": {"type": kind}} for binding, kind in enumerate(kinds)])
    pipeline = device.create_compute_pipeline(
        layout=device.create_pipeline_layout(bind_group_layouts=[layout]),
        compute={"module": device.create_shader_module(code=code), "entry_point": "main"})
    numbers = numpy.zeros(8, numpy.float32)
    given = [float(text) for text in inputs.split(",") if text.strip()]
    numbers[: len(given)] = given
    a = device.create_buffer_with_data(data=numbers, usage=wgpu.BufferUsage.STORAGE)
    result = device.create_buffer(size=4, usage=wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC)
    entries = [{"binding": binding, "resource": {"buffer": buffer}} for binding, buffer in enumerate([a, result])]
    encoder = device.create_command_encoder()
    compute = encoder.begin_compute_pass()
    compute.set_pipeline(pipeline)
    compute.set_bind_group(0, device.create_bind_group(layout=layout, entries=entries))
    compute.dispatch_workgroups(1)
    compute.end()
    device.queue.submit([encoder.finish()])
    words = numpy.frombuffer(device.queue.read_buffer(result), numpy.uint32)
    found = f"{words[0]:08x}"
    differs = "" if found == bits else f"  CHANGED, it was {bits}"
    changed += found != bits
    print(f"  {label:44} {found}  as f32 {words.view(numpy.float32)[0]}{differs}")
sys.exit(1 if changed else 0)
