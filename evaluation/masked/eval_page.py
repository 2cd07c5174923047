"""The table of run_mlm_eval.py, from its JSON alone."""

from typing import Any

from shared.markdown import escape, markdown_table


def make_table(report: dict[str, Any]) -> str:
    """The report as Markdown."""

    def cell(row: dict[str, Any], name: str, form: str) -> str:
        if name not in row:
            return ""
        low, high = row[f"{name}_interval"]
        return f"{row[name]:{form}} ({low:{form}} to {high:{form}})"

    metrics = {"loss": ".3f", "perplexity": ".1f", "masked_accuracy": ".3f", "bits_per_byte": ".3f"}
    more = {"pseudo_perplexity": ".1f", "pll_bits_per_byte": ".3f", "bits_per_byte_minus_first": "+.3f"}
    more["pll_bits_per_byte_minus_first"] = "+.3f"
    models = report["models"]
    metrics |= {name: form for name, form in more.items() if any(name in row for row in models.values())}
    head = ["model", *(name.replace("_", " ") for name in metrics), "most frequent token", "tokens per byte"]
    rows = []
    for label, row in models.items():
        cells = [cell(row, name, form) for name, form in metrics.items()]
        cells += [f"{row['most_frequent_token_accuracy']:.3f}", f"{row['tokens_per_byte']:.3f}"]
        rows.append([escape(label), *cells])
    first = next(iter(models.values()))
    text = escape(" ".join(report["settings"]["input"]))
    read = f"{first['blocks']:,} blocks of {text}"
    if "documents" in first:
        read = f"{first['documents']:,} documents of {text} ({first['bytes']:,} bytes)"
    parts = [
        markdown_table(head, rows),
        f"15% of the tokens of {read} masked, at fixed "
        "places; 'most frequent token' is the accuracy of always guessing it. In parentheses 95% intervals, "
        "bootstrapped over blocks"
        + (f", and over {first['sentences']:,} sentences." if "sentences" in first else "."),
    ]
    parts += [
        f"{escape(label)}: {speed['evaluation_tokens_per_second']:,.0f} tokens/s, {speed['ratio_to_forward']:.2f} "
        "times as fast as its forward passes with the head at the masked places, "
        f"{speed['ratio_to_forward_every_position']:.2f} times with the head at every place."
        for label, row in models.items()
        if (speed := row.get("speed"))
    ]
    return "\n\n".join(parts) + "\n"
