NOISE = config["noise"]
ARCHITECTURES = {"fc": "fashion_mnist", "cnn": "cifar10"}
LOSSES = ["mean_square", "cross_entropy"]


def noise_study(wildcards):
    """What one training depends on, and nothing of the other three."""
    network = NOISE[wildcards.architecture]
    shared = ["batch_size", "sampling", "seed", "trace_factors"]
    of_each_loss = {"learning_rate": "learning_rates", "epochs": "epochs"}
    return (
        {key: network[key] for key in network if key not in of_each_loss.values()}
        | {key: network[name][wildcards.loss] for key, name in of_each_loss.items()}
        | {key: NOISE[key] for key in shared}
    )


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
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        study=noise_study,
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
    resources:
        mem_mb=1500,
        runtime=30,
    params:
        seed=config["seed"],
        n_samples=NETWORK["n_samples"],
        study=NETWORK["alignment"],
        fits=config["fits"],
    script:
        "../scripts/measure_alignment.py"
