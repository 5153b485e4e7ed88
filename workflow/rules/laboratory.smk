# Studies beyond the paper: exact and independently computed answers beside its approximations.
# Each ends in one file results/laboratory/{study}.nc, which claims and figures read.
LABORATORY = [
    "splitting",
    "coverage",
    "weak_noise",
    "ladder",
    "regime_map",
    "critical_dimension",
    "double_well",
]


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
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(30),
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
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(30),
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
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(30),
    params:
        seed=config["seed"],
        fits=config["fits"],
        study=config["laboratory"]["weak_noise"],
    script:
        "../scripts/laboratory_weak_noise.py"


LADDER = config["laboratory"]["ladder"]


rule ladder_data:
    input:
        source=sources("laboratory_ladder_data.py"),
    output:
        "results/laboratory/parts/ladder_d{d}.nc",
    log:
        "results/logs/ladder_data/d{d}.log",
    benchmark:
        "results/benchmarks/ladder_data/d{d}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(60),
    params:
        seed=config["seed"],
        study={
            key: LADDER[key]
            for key in [
                "n_samples",
                "data_sets",
                "learning_rates",
                "batch_sizes",
                "thresholds",
                "data_every",
                "data_nodes",
                "ensemble",
            ]
        }
        | {"confidence": config["fits"]["confidence"]},
    script:
        "../scripts/laboratory_ladder_data.py"


rule ladder:
    input:
        data=expand("results/laboratory/parts/ladder_d{d}.nc", d=LADDER["dimensions"]),
        source=sources("laboratory_ladder.py"),
    output:
        "results/laboratory/ladder.nc",
    log:
        "results/logs/ladder.log",
    benchmark:
        "results/benchmarks/ladder.tsv"
    group:
        "closing"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(500),
        runtime=doubling(2),
    params:
        seed=config["seed"],
        fits=config["fits"],
        study=LADDER,
    script:
        "../scripts/laboratory_ladder.py"


rule regime_map:
    input:
        source=sources("laboratory_regime_map.py"),
    output:
        "results/laboratory/regime_map.nc",
    log:
        "results/logs/regime_map.log",
    benchmark:
        "results/benchmarks/regime_map.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(500),
        runtime=doubling(30),
    params:
        study=config["laboratory"]["regime_map"],
    script:
        "../scripts/laboratory_regime_map.py"


rule critical_dimension:
    input:
        source=sources("laboratory_critical_dimension.py"),
    output:
        "results/laboratory/critical_dimension.nc",
    log:
        "results/logs/critical_dimension.log",
    benchmark:
        "results/benchmarks/critical_dimension.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(1500),
        runtime=doubling(60),
    params:
        seed=config["seed"],
        fits=config["fits"],
        study=config["laboratory"]["critical_dimension"],
    script:
        "../scripts/laboratory_critical_dimension.py"


rule exit_rates:
    input:
        source=sources("laboratory_exit_rates.py"),
    output:
        "results/laboratory/parts/exit_rates_d{d}.nc",
    log:
        "results/logs/exit_rates/d{d}.log",
    benchmark:
        "results/benchmarks/exit_rates/d{d}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(1500),
        runtime=doubling(60),
    params:
        seed=config["seed"],
        study=config["laboratory"]["double_well"],
    script:
        "../scripts/laboratory_exit_rates.py"


rule double_well:
    input:
        rates=expand("results/laboratory/parts/exit_rates_d{d}.nc", d=[1, 2]),
        source=sources("laboratory_double_well.py"),
    output:
        "results/laboratory/double_well.nc",
    log:
        "results/logs/double_well.log",
    benchmark:
        "results/benchmarks/double_well.tsv"
    group:
        "closing"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(2),
    params:
        seed=config["seed"],
        fits=config["fits"],
        study=config["laboratory"]["double_well"],
    script:
        "../scripts/laboratory_double_well.py"
