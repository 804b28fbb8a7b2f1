//! The same work by the clock. On a shared machine read the instructions instead.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn frames(criterion: &mut Criterion) {
    for mut one in codec_bench::all() {
        let (what, who) = one.name.rsplit_once(": ").expect("WHAT: WHO");
        let mut group = criterion.benchmark_group(what);
        group.throughput(Throughput::Elements(one.units as u64));
        group.bench_function(who, |bencher| bencher.iter(&mut one.work));
        group.finish();
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
