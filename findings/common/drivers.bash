# Sourced by scripts of findings/: software GPU drivers and WebGPU compilers, each into a folder of the caller's, system untouched.

common=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# install_dawn FOLDER VERSION: Dawn, Chrome's WebGPU with its compiler Tint, as a module for node.
install_dawn() {
    npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$1" "webgpu@$2" >/dev/null
    cp "$common/evaluate.mjs" "$1/"
    echo "Dawn: npm webgpu $2"
}

# install_python FOLDER PACKAGE==VERSION...: a virtual environment in FOLDER/python.
install_python() {
    local folder=$1
    shift
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install --quiet --disable-pip-version-check "$@"
    echo "PyPI: $*"
}

# install_swiftshader FOLDER VERSION: Chrome's software GPU and a Vulkan loader, out of an npm package that carries Chromium.
install_swiftshader() {
    mkdir -p "$1/swiftshader"
    (cd "$1" && npm pack --silent "@sparticuz/chromium@$2" >/dev/null && tar -xzf sparticuz-chromium-*.tgz package/bin/swiftshader.tar.br)
    node -e 'const { brotliDecompressSync } = require("zlib"), { readFileSync } = require("fs");
        process.stdout.write(brotliDecompressSync(readFileSync(process.argv[1])))' "$1/package/bin/swiftshader.tar.br" |
        tar -x -C "$1/swiftshader"
    rm -r "$1"/sparticuz-chromium-*.tgz "$1/package"
    echo "SwiftShader: npm @sparticuz/chromium $2"
}

# on_swiftshader FOLDER COMMAND...
on_swiftshader() {
    local folder=$1/swiftshader
    shift
    env LD_LIBRARY_PATH="$folder" VK_DRIVER_FILES="$folder/vk_swiftshader_icd.json" "$@"
}

# install_lavapipe FOLDER VERSION: Mesa's software GPU and a Vulkan loader, unpacked from packages of Debian 12 and its backports. They
# come from the mirror that the machine uses.
install_lavapipe() {
    local apt=$1/apt release=bookworm mirror keys=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        grep -oE '^(URIs:|deb) .*https?://[^ ]+/debian/?( |$)' | grep -oE 'https?://[^ ]+' | head -n 1) || true
    [ -n "$mirror" ] || { echo "no Debian mirror is known here" >&2; return 1; }
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$1/lavapipe"
    : >"$apt/status"
    printf "deb [signed-by=$keys] $mirror %s main\n" $release $release-backports >"$apt/sources.list"
    local options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$apt/lists"
        -o "Dir::Cache=$apt/cache" -o "Dir::State::status=$apt/status" -o Debug::NoLocking=1 -o "APT::Sandbox::User=$(id -un)")
    apt-get "${options[@]}" update
    # With no package installed, its plan names all that the driver needs. The machine keeps its own C and C++ libraries.
    local plan
    plan=$(apt-get "${options[@]}" -t $release-backports -y --no-install-recommends --print-uris install \
        "mesa-vulkan-drivers=$2" libvulkan1)
    plan=$(echo "$plan" | awk '/^\047/ { print $2 }' | cut -d_ -f1 | grep -vxE 'libc6|libgcc-s1|libstdc\+\+6|gcc-.*-base')
    (cd "$apt" && apt-get "${options[@]}" -t $release-backports download $plan)
    local package
    for package in "$apt"/*.deb; do dpkg -x "$package" "$1/lavapipe"; done
    rm -r "$apt"
    echo "lavapipe: Debian mesa-vulkan-drivers $2"
}

# on_lavapipe FOLDER COMMAND...
on_lavapipe() {
    local libraries=$1/lavapipe/usr/lib/x86_64-linux-gnu
    shift
    printf '{ "file_format_version": "1.0.0", "ICD": { "api_version": "1.4.0", "library_path": "%s/libvulkan_lvp.so" } }\n' \
        "$libraries" >"$libraries/lvp_icd.json"
    env LD_LIBRARY_PATH="$libraries" VK_DRIVER_FILES="$libraries/lvp_icd.json" "$@"
}
