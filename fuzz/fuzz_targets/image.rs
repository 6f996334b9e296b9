#![no_main]

use fuzz::target::IMAGE as TARGET;

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.run(data));
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max: usize, seed: u32| {
    TARGET.mutate(data, size, max, seed)
});
