#!/bin/sh
# A queue under load from SIPp alone: agents, music, and callers who wait, are served, and hang up.
#
#   queue.sh SERVER:PORT FLOW [CALLS] [RATE]      (10 calls, 1 a second, if not given)
#
# Agents are all users at one address, music any user at another: provision those, press Enter. Ends with 0 when every
# call went as caller-queued.xml says. AGENT_PORT, MEDIA_PORT, CALLER_PORT and IP may be set; READY=1 waits for nobody.
set -eu
[ $# -ge 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
command -v sipp >/dev/null || { echo "queue.sh: install SIPp first: apt-get install sip-tester" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
server=$1 flow=$2 calls=${3:-10} rate=${4:-1}
ip=${IP:-127.0.0.1} agents=${AGENT_PORT:-7001} media=${MEDIA_PORT:-7000} caller=${CALLER_PORT:-7002}
work=$(mktemp -d)
cd "$work"
play() { sipp -sf "$here/$1.xml" -i "$ip" -p "$2" -nostdin "$ip" >"$1.log" 2>&1 & }
play media "$media"; music=$!
play agent-answer "$agents"; phones=$!
trap 'kill $music $phones 2>/dev/null || true; rm -rf "$work"' EXIT
echo "agents   sip:agent1@$ip:$agents (any name)"
echo "media    sip:music@$ip:$media (any name)"
if [ "${READY:-0}" != 1 ]; then
    echo "provision them at $server, then press Enter"
    read -r _ || true
fi
for pid in $music $phones; do
    kill -0 "$pid" 2>/dev/null || { echo "queue.sh: SIPp could not start:" >&2; cat ./*.log >&2; exit 2; }
done
status=0
sipp -sf "$here/caller-queued.xml" -i "$ip" -p "$caller" -s "$flow" -m "$calls" -r "$rate" -l "$calls" \
    -recv_timeout 30000 -nostdin -trace_err -error_file errors.log "$server" >caller.log 2>&1 || status=$?
if [ "$status" = 0 ]; then
    echo "$calls calls, all as caller-queued.xml says"
else
    echo "queue.sh: SIPp ended with $status; its first errors:" >&2
    head -n 40 errors.log >&2 2>/dev/null || tail -n 40 caller.log >&2
    exit 1
fi
