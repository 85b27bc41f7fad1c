\set agent random(1, 64)
INSERT INTO events (agent, body) VALUES (:agent, '{"type":"service","unit":"backup.service","state":"failed","code":1,"message":"no space left"}');
