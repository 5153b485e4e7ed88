FIGURES = {
    "fig3a": lambda: ["results/linear_regression/stationary.nc"],
    "fig3b": lambda: ["results/fits/linear_regression.nc"],
    "fig3c": lambda: ["results/fits/network.nc"],
    "fig4": lambda: [],
    "fig6": lambda: [f"results/network/hessian_seed{reference_seed()}.nc"],
    "exponents": lambda: ["results/fits/network.nc"],
    "residuals": lambda: [
        "results/fits/linear_regression.nc",
        "results/fits/network.nc",
    ],
    "pretraining": lambda: expand(
        "results/network/pretrained_seed{seed}.nc", seed=NETWORK["pretraining"]["seeds"]
    ),
}


rule figure:
    input:
        data=lambda wildcards: FIGURES[wildcards.figure](),
        source=sources("figure.py"),
    output:
        report(
            "results/figures/{figure}.{format}",
            caption="../report/{figure}.rst",
            category="Figures",
            labels={"figure": "{figure}", "format": "{format}"},
        ),
    log:
        "results/logs/figure/{figure}_{format}.log",
    benchmark:
        "results/benchmarks/figure/{figure}_{format}.tsv"
    wildcard_constraints:
        figure="|".join(FIGURES),
    conda:
        ENVIRONMENT
    script:
        "../scripts/figure.py"
