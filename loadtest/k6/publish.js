// Publications of shares at a fixed rate, each announced to every user who is online.
//
//   k6 run -e BROKER=http://127.0.0.1:8080 -e TOKENS=tokens.json -e RATE=100 -e DURATION=30s publish.js
import http from 'k6/http';
import { check } from 'k6';
import { SharedArray } from 'k6/data';

const given = new SharedArray('given', () => [JSON.parse(open(__ENV.TOKENS))]);
const rate = Number(__ENV.RATE || 100);

export const options = {
    scenarios: {
        publish: {
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
        http_req_duration: ['p(99)<100'],
    },
    summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
};

export default function () {
    const { sessions } = given[0];
    const session = sessions[Math.floor(Math.random() * sessions.length)];
    const share = {
        result_id: `result-${__VU}-${__ITER}`,
        title: 'A result under load',
        created_at: '2025-10-03T12:00:00Z',
        access_policy: { type: 'institution' },
    };
    const answer = http.post(`${__ENV.BROKER}/api/shares`, JSON.stringify(share), {
        headers: { Authorization: `Bearer ${session}`, 'Content-Type': 'application/json' },
        tags: { name: 'publish' },
    });
    check(answer, { 'is published': (a) => a.status === 201 });
}
