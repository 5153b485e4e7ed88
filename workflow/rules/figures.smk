FIGURES = {
    "fig1": lambda: expand(
        "results/decoupling/epoch{epoch}.nc", epoch=DECOUPLING["epochs"]
    ),
    "fig3a": lambda: ["results/linear_regression/stationary.nc"],
    "fig3b": lambda: ["results/fits/linear_regression.nc"],
    "fig3c": lambda: ["results/fits/network.nc"],
    "fig4": lambda: [],
    "fig6": lambda: [f"results/network/hessian_seed{reference_seed()}.nc"],
    "alignment": lambda: by_reference_seed("noise/alignment"),
    "exponents": lambda: ["results/fits/network.nc"],
    "collapse": lambda: ["results/fits/network_collapse.nc"],
    "escape_direction": lambda: by_reference_seed("network/escape"),
    "drift": lambda: by_reference_seed("network/escape"),
    "residuals": lambda: [
        "results/fits/linear_regression.nc",
        "results/fits/network.nc",
    ],
    "cutoff": lambda: [
        "results/fits/linear_regression.nc",
        "results/fits/network.nc",
    ],
    "fig2": lambda: [
        "results/noise/fc_mean_square.nc",
        "results/noise/cnn_mean_square.nc",
        "results/fits/noise.nc",
    ],
    "fig5": lambda: [
        "results/noise/fc_cross_entropy.nc",
        "results/noise/cnn_cross_entropy.nc",
        "results/fits/noise.nc",
    ],
    "trace_factor": lambda: [
        "results/noise/fc_mean_square.nc",
        "results/noise/cnn_mean_square.nc",
    ],
    "noise_slopes": lambda: ["results/fits/noise.nc"],
    "double_well": lambda: ["results/laboratory/double_well.nc"],
    "contrast": lambda: ["results/laboratory/double_well.nc"],
    "splitting": lambda: ["results/laboratory/splitting.nc"],
    "ladder": lambda: ["results/laboratory/ladder.nc"],
    "error_budget": lambda: ["results/laboratory/ladder.nc"],
    "regime_map": lambda: ["results/laboratory/regime_map.nc"],
    "critical_dimension": lambda: ["results/laboratory/critical_dimension.nc"],
    "weak_noise": lambda: ["results/laboratory/weak_noise.nc"],
    "pretraining": lambda: expand(
        "results/network/pretrained_seed{seed}.nc", seed=NETWORK["pretraining"]["seeds"]
    ),
}


# A rule for each, since the path of a caption takes no wildcard.
for figure, data in FIGURES.items():

    rule:
        name:
            f"draw_{figure}"
        input:
            data=lambda wildcards, data=data: data(),
            source=sources("figure.py"),
        output:
            report(
                f"results/figures/{figure}.{{format}}",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": figure, "format": "{format}"},
            ),
        log:
            f"results/logs/draw_figure/{figure}_{{format}}.log",
        benchmark:
            f"results/benchmarks/draw_figure/{figure}_{{format}}.tsv"
        group:
            "closing"
        conda:
            ENVIRONMENT
        threads: 1
        resources:
            mem_mb=doubling(500),
            runtime=doubling(2),
        params:
            figure=figure,
        script:
            "../scripts/figure.py"
