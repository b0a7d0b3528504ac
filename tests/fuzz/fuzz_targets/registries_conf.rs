#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pyats_image_builder::fuzz::call("registries_conf", bytes));
