# Studies beyond the paper: exact and independently computed answers beside its approximations.
# Each ends in one file results/laboratory/{study}.nc, which claims and figures read.
LABORATORY = ["splitting", "coverage", "weak_noise"]


rule splitting:
    input:
        source=sources("laboratory_splitting.py"),
    output:
        "results/laboratory/splitting.nc",
    log:
        "results/logs/splitting.log",
    benchmark:
        "results/benchmarks/splitting.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        seed=config["seed"],
        fits=config["fits"],
        study=config["laboratory"]["splitting"],
    script:
        "../scripts/laboratory_splitting.py"


rule coverage:
    input:
        source=sources("laboratory_coverage.py"),
    output:
        "results/laboratory/coverage.nc",
    log:
        "results/logs/coverage.log",
    benchmark:
        "results/benchmarks/coverage.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        seed=config["seed"],
        fits=config["fits"],
        study=config["laboratory"]["coverage"],
    script:
        "../scripts/laboratory_coverage.py"


rule weak_noise:
    input:
        source=sources("laboratory_weak_noise.py"),
    output:
        "results/laboratory/weak_noise.nc",
    log:
        "results/logs/weak_noise.log",
    benchmark:
        "results/benchmarks/weak_noise.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        seed=config["seed"],
        fits=config["fits"],
        study=config["laboratory"]["weak_noise"],
    script:
        "../scripts/laboratory_weak_noise.py"
