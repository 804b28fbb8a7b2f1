//! Compiles the `.proto` files without a `protoc` on the machine.
fn main() {
    let files = ["im/v1/envelope.proto", "im/v1/logic.proto", "im/v1/cluster.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."]).expect("the .proto files are valid");
    let mut config = prost_build::Config::new();
    config.bytes(["."]);
    compile(descriptors, config);
}

#[cfg(not(feature = "grpc"))]
fn compile(descriptors: prost_types::FileDescriptorSet, mut config: prost_build::Config) {
    config.compile_fds(descriptors).expect("generated code can be written");
}

/// With the services, and the descriptors that reflection shows.
#[cfg(feature = "grpc")]
fn compile(descriptors: prost_types::FileDescriptorSet, config: prost_build::Config) {
    use prost::Message as _;
    let folder = std::env::var_os("OUT_DIR").expect("cargo names the folder for output");
    let path = std::path::Path::new(&folder).join("im.v1.descriptors");
    std::fs::write(path, descriptors.encode_to_vec()).expect("the descriptors can be written");
    tonic_prost_build::configure()
        .compile_fds_with_config(descriptors, config)
        .expect("generated code can be written");
}
