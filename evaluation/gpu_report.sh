#!/usr/bin/env bash
# What only a GPU can show, in one call of about ten minutes: speed against the stock path for all sizes, options of
# the tiny model, and the tests that need CUDA. `make bench-gpu` calls it. Takes the folder for its tables, and flags for
# every benchmark:
#   bash evaluation/gpu_report.sh runs/gpu
#   bash evaluation/gpu_report.sh runs/try --seconds 1 --rounds 1 --batch_size 2     # on a CPU, to see that it runs
# It needs the packages named below, and for the test of ZeRO-2 deepspeed, which is skipped without.
set -uo pipefail
cd "$(dirname "$0")/.."
output=${1:?usage: gpu_report.sh FOLDER [flags of bench/mlm.py]}
shift
needs="torch transformers accelerate tokenizers pyarrow matplotlib psutil pytest"
# shellcheck disable=SC2086  # words
missing=$(python -c '
import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))' $needs) || exit 2
if [ -n "$missing" ]; then
    echo "error: not installed: $missing; run pip install $missing" >&2
    exit 2
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" TOKENIZERS_PARALLELISM=true
failed=0

bench() {
    local name=$1
    shift
    python evaluation/bench/mlm.py --rounds 1 --seconds 6 --output_dir "$output/$name" "$@" || failed=1
}

bench sizes --sizes tiny mini small base "$@"
apart=("documents apart: --isolate_documents")
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then  # a CPU has no backward pass of it
    apart+=("documents apart, flex attention: --isolate_documents --attn_implementation flex_attention")
fi
bench options --sizes tiny --skip_stock --variants \
    "compiled: --torch_compile" \
    "${apart[@]}" \
    "fp32: --bf16 false" \
    "unfused AdamW: --optim adamw_torch" \
    "no data worker: --dataloader_num_workers 0 --dataloader_persistent_workers false" "$@"
python -m pytest -q -rs -p no:cacheprovider tests/shared/test_gpu.py tests/pretraining/test_attention.py tests/shared/test_loss.py tests/shared/test_speed.py || failed=1
exit "$failed"
