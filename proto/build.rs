//! Compiles the wire contracts with protox, so that nobody needs protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = [
        "csi.proto",
        "holdfast.proto",
        "kubevirt/info.proto",
        "kubevirt/v1alpha1.proto",
        "kubevirt/v1alpha2.proto",
        "kubevirt/v1alpha3.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
