NOISE = config["noise"]
ARCHITECTURES = {"fc": "fashion_mnist", "cnn": "cifar10"}
LOSSES = ["mean_square", "cross_entropy"]


rule measure_noise:
    input:
        data=lambda wildcards: f"results/data/{ARCHITECTURES[wildcards.architecture]}.nc",
        source=sources("measure_noise.py"),
    output:
        "results/noise/{architecture}_{loss}.nc",
    log:
        "results/logs/measure_noise/{architecture}_{loss}.log",
    benchmark:
        "results/benchmarks/measure_noise/{architecture}_{loss}.tsv"
    wildcard_constraints:
        architecture="|".join(ARCHITECTURES),
        loss="|".join(LOSSES),
    # The longest jobs begin first.
    priority: 30
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        # The images, 12 kB each at most, and as much again several times while they are read.
        mem_mb=doubling(
            1200 + max(NOISE[name]["n_samples"] for name in ARCHITECTURES) // 20
        ),
        runtime=doubling(lambda wildcards: training_minutes(NOISE, wildcards)),
    params:
        study=lambda wildcards: noise_study(NOISE, wildcards),
    script:
        "../scripts/measure_noise.py"


rule measure_alignment:
    input:
        data=MNIST,
        pretrained="results/network/pretrained_seed{seed}.nc",
        source=sources("measure_alignment.py"),
    output:
        "results/noise/alignment_seed{seed}.nc",
    log:
        "results/logs/measure_alignment/seed{seed}.log",
    benchmark:
        "results/benchmarks/measure_alignment/seed{seed}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(1200),
        runtime=doubling(20),
    params:
        seed=config["seed"],
        n_samples=NETWORK["n_samples"],
        study=NETWORK["alignment"],
        fits=config["fits"],
    script:
        "../scripts/measure_alignment.py"
