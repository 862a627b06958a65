// Look-ups of shares at a fixed rate: shares of another user, so that every look-up checks the policy, asks
// who is online, writes the audit log and signs a grant.
//
//   k6 run -e BROKER=http://127.0.0.1:8080 -e TOKENS=tokens.json -e RATE=1000 -e DURATION=30s lookup.js
import http from 'k6/http';
import { check } from 'k6';
import { SharedArray } from 'k6/data';

const given = new SharedArray('given', () => [JSON.parse(open(__ENV.TOKENS))]);
const rate = Number(__ENV.RATE || 1000);

export const options = {
    scenarios: {
        lookup: {
            executor: 'constant-arrival-rate',
            rate,
            timeUnit: '1s',
            duration: __ENV.DURATION || '30s',
            preAllocatedVUs: 50,
            maxVUs: 500,
        },
    },
    thresholds: {
        checks: ['rate==1'],
        dropped_iterations: ['count==0'],
        http_req_duration: ['p(99)<20'],
    },
    summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
};

export default function () {
    const { sessions, shares } = given[0];
    const session = sessions[Math.floor(Math.random() * sessions.length)];
    const share = shares[Math.floor(Math.random() * shares.length)];
    const answer = http.get(`${__ENV.BROKER}/api/shares/${share}`, {
        headers: { Authorization: `Bearer ${session}` },
        tags: { name: 'lookup' },
    });
    const good = check(answer, {
        'is the share, with a grant': (a) => a.status === 200 && a.json('grant') !== undefined,
    });
    if (!good) {
        console.error(`${answer.status} ${answer.error} ${answer.body}`);
    }
}
