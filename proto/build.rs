//! Compiles the `.proto` files without a `protoc` on the machine.
fn main() {
    let files = ["im/v1/envelope.proto", "im/v1/logic.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."]).expect("the .proto files are valid");
    prost_build::Config::new()
        .bytes(["."])
        .compile_fds(descriptors)
        .expect("generated code can be written");
}
