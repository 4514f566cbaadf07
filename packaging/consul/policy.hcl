# The minimal Consul ACL policy of svcagent on one host (Consul 1.4 and later).
#
# Replace three placeholders:
#   NODE     this host's node name in Consul (consul members shows it),
#   SERVICE  the name (not the ID) of a service that services.d defines. Repeat both rules for each,
#   LOCK     the reload.lock of a definition that sets one. Repeat the rule for each, or leave it out.
#
# Then create a token with this policy, using a token that may write ACLs:
#
#   sed 's/NODE/host-1/; s/SERVICE/keyword-suggest/; s/LOCK/keyword_suggest_reload/' policy.hcl |
#     consul acl policy create -name svcagent-host-1 -rules -
#   consul acl token create -description 'svcagent on host-1' -policy-name svcagent-host-1
#
# svcagent doctor then reports the rules that the token lacks.
#
# To use one policy for all hosts, replace agent and session with agent_prefix "" and session_prefix "".
#
# Keep the token valid as long as its services are registered: the Consul agent uses it to report their state to the
# servers. If it is deleted, the catalog keeps their last state.

# To read the local agent's node name and datacenter, which almost every command needs.
agent "NODE" { policy = "read" }

# To check that enough instances on other nodes pass before a drain, and that maintenance has reached the catalog. Without
# this rule Consul's answers are empty; svcagent reports that instead of relying on them.
node_prefix "" { policy = "read" }

# To register the service and its checks, to enable maintenance, and to read them back (write includes read).
service "SERVICE" { policy = "write" }

# To create the session that holds the reload lock, or waits for it.
session "NODE" { policy = "write" }

# To check whether a reload on another host still runs, even for a service that this host does not define. Consul hides
# sessions that the token may not read, and a hidden session looks like a crashed reload.
session_prefix "" { policy = "read" }

# The lock svcagent/<service>/lock, the queue for every lock of the service, and the documents that hosts share: the
# wanted version, quarantine, pause, states, history and sent notifications. Write access permits choosing among the
# versions that hosts have seen under the tag, and pausing reloads. Keys are in lower case, so write the service's name in
# lower case here.
key_prefix "svcagent/SERVICE/" { policy = "write" }

# A lock with another name, for example one that consul lock also uses.
key_prefix "LOCK/" { policy = "write" }

# Only for svcagent maint enable --node and disable --node. Leave it out if operators use another token for that.
node "NODE" { policy = "write" }
