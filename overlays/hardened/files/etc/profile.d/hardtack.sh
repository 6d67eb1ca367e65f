# Reason: a login that is left alone ends after a quarter of an hour.
if [ -z "${TMOUT:-}" ]; then
    TMOUT=900
    export TMOUT
    readonly TMOUT
fi
