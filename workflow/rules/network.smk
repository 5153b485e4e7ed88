NETWORK = config["network"]
# Weights and biases of 784-hidden_units-1.
PARAMETERS = 786 * NETWORK["hidden_units"] + 1
# Not marked as ancient, although its content is the same wherever it came from: where such a file
# is made again, Snakemake leaves out the jobs behind it that have no output yet (its issue 4166).
MNIST = "results/data/mnist.nc"


rule pretrain:
    input:
        data=MNIST,
        source=sources("pretrain.py"),
    output:
        "results/network/pretrained_seed{seed}.nc",
    log:
        "results/logs/pretrain/seed{seed}.log",
    benchmark:
        "results/benchmarks/pretrain/seed{seed}.tsv"
    priority: 20
    group:
        "minima"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(20),
    params:
        n_samples=NETWORK["n_samples"],
        hidden_units=NETWORK["hidden_units"],
        study={
            key: value
            for key, value in NETWORK["pretraining"].items()
            if key != "seeds"
        },
    script:
        "../scripts/pretrain.py"


rule hessian_outliers:
    input:
        data=MNIST,
        pretrained="results/network/pretrained_seed{seed}.nc",
        source=sources("hessian_outliers.py"),
    output:
        "results/network/hessian_seed{seed}.nc",
    log:
        "results/logs/hessian_outliers/seed{seed}.log",
    benchmark:
        "results/benchmarks/hessian_outliers/seed{seed}.tsv"
    priority: 20
    group:
        "minima"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        # A few matrices of P x P float64, and their eigenvalues in time P^3.
        mem_mb=doubling(600 + 40 * PARAMETERS**2 // 10**6),
        runtime=doubling(20 + PARAMETERS**3 // 10**11),
    params:
        n_samples=NETWORK["n_samples"],
        study=NETWORK["hessian"],
    script:
        "../scripts/hessian_outliers.py"


checkpoint choose_reference_seed:
    input:
        hessian=expand(
            "results/network/hessian_seed{seed}.nc",
            seed=NETWORK["pretraining"]["seeds"],
        ),
        source=sources("choose_reference_seed.py"),
    output:
        "results/network/reference_seed.json",
        "results/network/reference_seed.json.sha256",
    log:
        "results/logs/choose_reference_seed.log",
    benchmark:
        "results/benchmarks/choose_reference_seed.tsv"
    priority: 20
    localrule: True
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(500),
        runtime=doubling(10),
    params:
        seeds=NETWORK["pretraining"]["seeds"],
        curvature=NETWORK["paper_values"]["curvature"],
    script:
        "../scripts/choose_reference_seed.py"


rule first_passage_network:
    input:
        data=MNIST,
        pretrained="results/network/pretrained_seed{seed}.nc",
        source=sources("first_passage_network.py"),
    output:
        "results/network/shards/first_passage_seed{seed}_eta{eta}_B{B}_runs{first}-{last}.nc",
    log:
        "results/logs/first_passage_network/seed{seed}_eta{eta}_B{B}_runs{first}-{last}.log",
    benchmark:
        "results/benchmarks/first_passage_network/seed{seed}_eta{eta}_B{B}_runs{first}-{last}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        # The kernel, N x N float32, and as much again while it is made.
        mem_mb=doubling(600 + 14 * NETWORK["n_samples"] ** 2 // 10**6),
        runtime=doubling(30),
    params:
        seed=config["seed"],
        n_samples=NETWORK["n_samples"],
        study={
            key: NETWORK["first_passage"][key]
            for key in ["max_steps", "thresholds", "sampling"]
        },
    script:
        "../scripts/first_passage_network.py"


rule gather_network:
    input:
        shards=lambda wildcards: all_shards(
            "results/network",
            "first_passage_seed{seed}_eta{eta}_B{B}".format_map(wildcards),
            passage_runs(wildcards),
        ),
        source=lambda wildcards: gathering_sources(passage_runs(wildcards)),
    output:
        "results/network/first_passage_seed{seed}_eta{eta}_B{B}.nc",
    log:
        "results/logs/gather_network/seed{seed}_eta{eta}_B{B}.log",
    benchmark:
        "results/benchmarks/gather_network/seed{seed}_eta{eta}_B{B}.tsv"
    group:
        "closing"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(500),
        runtime=doubling(2),
    params:
        precision=lambda wildcards: precision(passage_runs(wildcards)),
    script:
        "../scripts/gather_first_passage.py"


rule measure_escape:
    input:
        data=MNIST,
        pretrained="results/network/pretrained_seed{seed}.nc",
        hessian="results/network/hessian_seed{seed}.nc",
        source=sources("measure_escape.py"),
    output:
        "results/network/escape_seed{seed}.nc",
    log:
        "results/logs/measure_escape/seed{seed}.log",
    benchmark:
        "results/benchmarks/measure_escape/seed{seed}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(2500),
        runtime=doubling(30),
    params:
        seed=config["seed"],
        confidence=config["fits"]["confidence"],
        n_samples=NETWORK["n_samples"],
        directions=NETWORK["alignment"]["directions"],
        sampling=NETWORK["first_passage"]["sampling"],
        max_steps=NETWORK["first_passage"]["max_steps"],
        study=NETWORK["escape"],
    script:
        "../scripts/measure_escape.py"
