REGRESSION_PASSAGES = expand(
    "results/linear_regression/first_passage_d{d}_eta{eta}_B{B}.nc",
    d=REGRESSION["dimensions"],
    eta=map(spelled, REGRESSION["learning_rates"]),
    B=REGRESSION["batch_sizes"],
)
COLLAPSE_PASSAGES = [
    "results/network/first_passage_seed{}_eta{}_B{}.nc".format(
        seed, spelled(case["learning_rate"]), case["batch_size"]
    )
    for seed in NETWORK["pretraining"]["seeds"]
    for case in NETWORK["collapse"]["cases"]
]


rule fit_stationary:
    input:
        samples="results/linear_regression/stationary_samples.nc",
        source=sources("fit_stationary.py"),
    output:
        "results/linear_regression/stationary.nc",
    log:
        "results/logs/fit_stationary.log",
    benchmark:
        "results/benchmarks/fit_stationary.tsv"
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
        bins=config["linear_regression"]["stationary"]["bins"],
        min_count=config["linear_regression"]["stationary"]["min_count"],
        blocks=config["linear_regression"]["stationary"]["blocks"],
    script:
        "../scripts/fit_stationary.py"


rule fit_linear_regression:
    input:
        first_passage=REGRESSION_PASSAGES,
        source=sources("fit_linear_regression.py"),
    output:
        "results/fits/linear_regression.nc",
    log:
        "results/logs/fit_linear_regression.log",
    benchmark:
        "results/benchmarks/fit_linear_regression.tsv"
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
        fit_range=REGRESSION["fit_range"],
        dimensions=REGRESSION["dimensions"],
        learning_rates=REGRESSION["learning_rates"],
        batch_sizes=REGRESSION["batch_sizes"],
    script:
        "../scripts/fit_linear_regression.py"


rule fit_network:
    input:
        first_passage=lambda wildcards: network_passages(),
        hessian=lambda wildcards: f"results/network/hessian_seed{reference_seed()}.nc",
        source=sources("fit_network.py"),
    output:
        "results/fits/network.nc",
    log:
        "results/logs/fit_network.log",
    benchmark:
        "results/benchmarks/fit_network.tsv"
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
        fit_range=NETWORK["first_passage"]["fit_range"],
        learning_rates=NETWORK["first_passage"]["learning_rates"],
        batch_sizes=NETWORK["first_passage"]["batch_sizes"],
        paper_values=NETWORK["paper_values"],
        reference_seed=lambda wildcards: reference_seed(),
    script:
        "../scripts/fit_network.py"


rule fit_collapse:
    input:
        first_passage=COLLAPSE_PASSAGES,
        hessian=expand(
            "results/network/hessian_seed{seed}.nc",
            seed=NETWORK["pretraining"]["seeds"],
        ),
        alignment=expand(
            "results/noise/alignment_seed{seed}.nc",
            seed=NETWORK["pretraining"]["seeds"],
        ),
        source=sources("fit_collapse.py"),
    output:
        "results/fits/network_collapse.nc",
    log:
        "results/logs/fit_collapse.log",
    benchmark:
        "results/benchmarks/fit_collapse.tsv"
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
        fit_range=NETWORK["first_passage"]["fit_range"],
        cases=NETWORK["collapse"]["cases"],
        seeds=NETWORK["pretraining"]["seeds"],
    script:
        "../scripts/fit_collapse.py"


rule fit_noise:
    input:
        **{
            f"{architecture}_{loss}": f"results/noise/{architecture}_{loss}.nc"
            for architecture in ARCHITECTURES
            for loss in LOSSES
        },
        source=sources("fit_noise.py"),
    output:
        "results/fits/noise.nc",
    log:
        "results/logs/fit_noise.log",
    benchmark:
        "results/benchmarks/fit_noise.tsv"
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
        stages=NOISE["stages"],
        architectures=list(ARCHITECTURES),
    script:
        "../scripts/fit_noise.py"
