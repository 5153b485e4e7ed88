REGRESSION = config["linear_regression"]["first_passage"]


rule sample_stationary:
    input:
        source=sources("sample_stationary.py"),
    output:
        "results/linear_regression/stationary_samples.nc",
    log:
        "results/logs/sample_stationary.log",
    benchmark:
        "results/benchmarks/sample_stationary.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(20),
    params:
        seed=config["seed"],
        study={
            key: config["linear_regression"]["stationary"][key]
            for key in [
                "n_samples",
                "learning_rates",
                "batch_sizes",
                "samples",
                "interval",
            ]
        },
    script:
        "../scripts/sample_stationary.py"


rule first_passage_linear_regression:
    input:
        source=sources("first_passage_linear_regression.py"),
    output:
        "results/linear_regression/shards/first_passage_d{d}_eta{eta}_B{B}_runs{first}-{last}.nc",
    log:
        "results/logs/first_passage_linear_regression/d{d}_eta{eta}_B{B}_runs{first}-{last}.log",
    benchmark:
        "results/benchmarks/first_passage_linear_regression/d{d}_eta{eta}_B{B}_runs{first}-{last}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(30),
    params:
        seed=config["seed"],
        study={
            key: REGRESSION[key]
            for key in ["n_samples", "max_steps", "thresholds", "sampling"]
        },
    script:
        "../scripts/first_passage_linear_regression.py"


rule gather_linear_regression:
    input:
        shards=lambda wildcards: all_shards(
            "results/linear_regression",
            "first_passage_d{d}_eta{eta}_B{B}".format_map(wildcards),
            REGRESSION,
        ),
        source=gathering_sources(REGRESSION),
    output:
        "results/linear_regression/first_passage_d{d}_eta{eta}_B{B}.nc",
    log:
        "results/logs/gather_linear_regression/d{d}_eta{eta}_B{B}.log",
    benchmark:
        "results/benchmarks/gather_linear_regression/d{d}_eta{eta}_B{B}.tsv"
    group:
        "closing"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(500),
        runtime=doubling(2),
    params:
        precision=precision(REGRESSION),
    script:
        "../scripts/gather_first_passage.py"
