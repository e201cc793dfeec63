pub mod torchscript;
