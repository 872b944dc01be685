// A web server with a timer, an open file and something that was promised.
const fs = require('fs'), http = require('http');
fs.mkdirSync('/srv/crucible-test', {recursive: true});
const file = fs.openSync('/srv/crucible-test/ticks', 'a+');
const state = {ticks: 0, requests: 0, secret: Math.random().toString(36), promised: 0};
setInterval(() => { state.ticks++; fs.writeSync(file, state.ticks + '\n'); }, 5);
const later = ms => new Promise(done => setTimeout(done, ms));
(async () => { for (;;) { await later(7); state.promised++; } })();
http.createServer((request, response) => {
  state.requests++;
  const then = {...state}; // while the file is read, ticks come that it lacks
  // By way of the thread pool, which is part of what must come back.
  fs.readFile('/srv/crucible-test/ticks', 'utf8', (error, text) => {
    const lines = error ? [] : text.trim().split('\n');
    const inOrder = lines.every((line, i) => Number(line) === i + 1);
    response.end(JSON.stringify({...then, lines: lines.length, inOrder}));
  });
}).listen(8000, () => console.log('ready'));
