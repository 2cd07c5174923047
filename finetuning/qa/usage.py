"""How a question-answering model is used, for its card: transformers has had no pipeline for it since 5.3."""

USAGE = """from transformers import AutoModelForQuestionAnswering, AutoTokenizer

name, question, context = "path/or/id/of/this/model", "Who ...?", "..."
tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForQuestionAnswering.from_pretrained(name)
inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
places, sides = inputs.pop("offset_mapping")[0], inputs.sequence_ids()
outputs = model(**inputs)
scores = (outputs.start_logits[0, :, None] + outputs.end_logits[0]).detach()  # of first and last token; [0, 0]: none
pairs = [(i, j) for i in range(len(sides)) for j in range(i, min(i + 30, len(sides))) if sides[i] == sides[j] == 1]
start, end = max(pairs, key=lambda pair: scores[pair])
print(context[places[start, 0] : places[end, 1]].strip(), float(scores[start, end] - scores[0, 0]))"""
